# NUM OP NUM -> the answer of IEEE double arithmetic, as %.17g. See ../README.md.
$VERBOSE = nil # no warning beside our own sentence when a number is out of range

NUMBER = /\A([+-]?)(?:([0-9]+)\.?([0-9]*)|\.([0-9]+))(?:[eE]([+-]?[0-9]+))?\z/

def refuse(status, sentence)
  $stderr.puts sentence
  exit status
end

def number(text)
  parts = NUMBER.match(text) if text.length <= 60 && text.ascii_only?
  refuse 64, 'NUM is a decimal number like -1.5e3, of at most 60 characters.' unless parts
  # Float() knows neither 5. nor, in some releases, .5
  whole, fraction = parts[2] || '0', parts[3] || parts[4]
  fraction = '0' if fraction.empty?
  value = Float("#{parts[1]}#{whole}.#{fraction}e#{parts[5] || 0}")
  if value.infinite? || (value == 0 && "#{whole}#{fraction}" =~ /[1-9]/)
    refuse 65, 'A number lies outside the range of a double.'
  end
  value
end

if ARGV.length != 3 || !['+', '-', '*', '/'].include?(ARGV[1])
  refuse 64, 'Say it in three arguments: NUM OP NUM, where OP is + - * or /.'
end
left, operator, right = number(ARGV[0]), ARGV[1], number(ARGV[2])
refuse 65, 'Division by zero.' if operator == '/' && right == 0
answer = left.public_send(operator, right)
refuse 65, 'The answer lies outside the range of a double.' if answer.infinite?
puts format('%.17g', answer == 0 ? 0.0 : answer)
