# NUM OP NUM -> the answer of IEEE double arithmetic, as %.17g. See ../README.md.
use strict;
use warnings;
use POSIX ();

my $huge = 9**9**9;

sub refuse {
    my ($status, $sentence) = @_;
    print STDERR "$sentence\n";
    exit $status;
}

sub number {
    my ($text) = @_;
    refuse(64, 'NUM is a decimal number like -1.5e3, of at most 60 characters.')
        if length($text) > 60 || $text !~ /\A[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?\z/;
    # Perl's own reading of a string may be off in the last digit; the C library's is not.
    my ($value) = POSIX::strtod($text);
    my ($digits) = split /[eE]/, $text;
    refuse(65, 'A number lies outside the range of a double.')
        if abs($value) == $huge || ($value == 0 && $digits =~ /[1-9]/);
    return $value;
}

refuse(64, 'Say it in three arguments: NUM OP NUM, where OP is + - * or /.')
    if @ARGV != 3 || $ARGV[1] !~ m{\A[-+*/]\z};
my ($left, $operator, $right) = (number($ARGV[0]), $ARGV[1], number($ARGV[2]));
refuse(65, 'Division by zero.') if $operator eq '/' && $right == 0;
my $answer =
      $operator eq '+' ? $left + $right
    : $operator eq '-' ? $left - $right
    : $operator eq '*' ? $left * $right
    :                    $left / $right;
refuse(65, 'The answer lies outside the range of a double.') if abs($answer) == $huge;
printf "%.17g\n", $answer == 0 ? 0 : $answer;
