# NUM OP NUM -> the answer of IEEE double arithmetic, as %.17g. See ../README.md. For gawk, without -M.

function refuse(status, sentence) {
	print sentence > "/dev/stderr"
	exit status
}

# The number that `text` stands for; exits when it is none, or none that a double can hold.
function number(text, digits, value) {
	if (length(text) > 60 || text !~ /^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$/)
		refuse(64, "NUM is a decimal number like -1.5e3, of at most 60 characters.")
	value = text + 0.0
	digits = text
	sub(/[eE].*/, "", digits)
	if (value > LARGEST || value < -LARGEST || (value == 0 && digits ~ /[1-9]/))
		refuse(65, "A number lies outside the range of a double.")
	return value
}

BEGIN {
	LARGEST = 1.7976931348623157e308
	if (ARGC != 4 || ARGV[2] !~ /^[-+*\/]$/)
		refuse(64, "Say it in three arguments: NUM OP NUM, where OP is + - * or /.")
	left = number(ARGV[1])
	right = number(ARGV[3])
	if (ARGV[2] == "+")
		answer = left + right
	else if (ARGV[2] == "-")
		answer = left - right
	else if (ARGV[2] == "*")
		answer = left * right
	else if (right == 0)
		refuse(65, "Division by zero.")
	else
		answer = left / right
	if (answer > LARGEST || answer < -LARGEST)
		refuse(65, "The answer lies outside the range of a double.")
	if (answer == 0)
		answer = 0
	printf "%.17g\n", answer
	exit 0
}
