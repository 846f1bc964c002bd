# NUM OP NUM -> the answer of IEEE double arithmetic, as %.17g. See ../README.md.

set largest 1.7976931348623157e308

proc refuse {status sentence} {
    puts stderr $sentence
    exit $status
}

proc number {text} {
    global largest
    if {[string length $text] > 60
        || ![regexp {\A[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\Z} $text whole digits]} {
        refuse 64 "NUM is a decimal number like -1.5e3, of at most 60 characters."
    }
    # Not expr: it would take 010 for eight, and 7 for an integer.
    scan $text %f value
    if {abs($value) > $largest || ($value == 0 && [regexp {[1-9]} $digits])} {
        refuse 65 "A number lies outside the range of a double."
    }
    return $value
}

if {$argc != 3 || [lindex $argv 1] ni {+ - * /}} {
    refuse 64 "Say it in three arguments: NUM OP NUM, where OP is + - * or /."
}
set left [number [lindex $argv 0]]
set right [number [lindex $argv 2]]
switch -- [lindex $argv 1] {
    + { set answer [expr {$left + $right}] }
    - { set answer [expr {$left - $right}] }
    * { set answer [expr {$left * $right}] }
    / {
        if {$right == 0} { refuse 65 "Division by zero." }
        set answer [expr {$left / $right}]
    }
}
if {abs($answer) > $largest} {
    refuse 65 "The answer lies outside the range of a double."
}
if {$answer == 0} { set answer 0.0 }
puts [format %.17g $answer]
