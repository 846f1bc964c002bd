// NUM OP NUM -> the answer of IEEE double arithmetic, as %.17g. See ../README.md.
'use strict';

const NUMBER = /^[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?$/;

function refuse(status, sentence) {
  process.stderr.write(sentence + '\n');
  process.exit(status);
}

function read(text) {
  if (text.length > 60 || !NUMBER.test(text)) {
    refuse(64, 'NUM is a decimal number like -1.5e3, of at most 60 characters.');
  }
  const value = Number(text);
  if (!Number.isFinite(value) || (value === 0 && /[1-9]/.test(text.split(/[eE]/)[0]))) {
    refuse(65, 'A number lies outside the range of a double.');
  }
  return value;
}

// What C's %.17g writes. toPrecision(17) rounds a tie up, C to the even digit; hence the digits by hand.
function general(value) {
  const [mantissa, power] = Math.abs(value).toExponential(100).split('e');
  const digits = mantissa.replace('.', '');
  let kept = BigInt(digits.slice(0, 17));
  let exponent = Number(power);
  const rest = digits.slice(17).replace(/0+$/, '');
  if (rest > '5' || (rest === '5' && kept % 2n === 1n)) kept += 1n;
  let text = kept.toString();
  if (text.length > 17) exponent += 1;
  text = text.slice(0, 17);
  const sign = value < 0 ? '-' : '';
  if (exponent < -4 || exponent >= 17) {
    const short = (text[0] + '.' + text.slice(1)).replace(/\.?0+$/, '');
    return sign + short + 'e' + (exponent < 0 ? '-' : '+') + String(Math.abs(exponent)).padStart(2, '0');
  }
  const whole = exponent < 0 ? '0' : text.slice(0, exponent + 1);
  const fraction = exponent < 0 ? '0'.repeat(-exponent - 1) + text : text.slice(exponent + 1);
  const trimmed = fraction.replace(/0+$/, '');
  return sign + whole + (trimmed && '.' + trimmed);
}

const words = process.argv.slice(2);
if (words.length !== 3 || !['+', '-', '*', '/'].includes(words[1])) {
  refuse(64, 'Say it in three arguments: NUM OP NUM, where OP is + - * or /.');
}
const [left, operator, right] = [read(words[0]), words[1], read(words[2])];
if (operator === '/' && right === 0) refuse(65, 'Division by zero.');
const answer = { '+': left + right, '-': left - right, '*': left * right, '/': left / right }[operator];
if (!Number.isFinite(answer)) refuse(65, 'The answer lies outside the range of a double.');
process.stdout.write((answer === 0 ? '0' : general(answer)) + '\n');
