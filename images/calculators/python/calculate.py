"""NUM OP NUM -> the answer of IEEE double arithmetic, as %.17g. See ../README.md."""

import math
import re
import sys

NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
LONGEST = 60


def refuse(status, sentence):
    print(sentence, file=sys.stderr)
    sys.exit(status)


def read(text):
    if len(text) > LONGEST or not NUMBER.fullmatch(text):
        refuse(64, "NUM is a decimal number like -1.5e3, of at most 60 characters.")
    value = float(text)
    if math.isinf(value) or (value == 0 and re.search("[1-9]", re.split("[eE]", text)[0])):
        refuse(65, "A number lies outside the range of a double.")
    return value


def main(arguments):
    if len(arguments) != 3 or arguments[1] not in ("+", "-", "*", "/"):
        refuse(64, "Say it in three arguments: NUM OP NUM, where OP is + - * or /.")
    left, operator, right = read(arguments[0]), arguments[1], read(arguments[2])
    if operator == "+":
        answer = left + right
    elif operator == "-":
        answer = left - right
    elif operator == "*":
        answer = left * right
    elif right == 0:
        refuse(65, "Division by zero.")
    else:
        answer = left / right
    if math.isinf(answer):
        refuse(65, "The answer lies outside the range of a double.")
    print("%.17g" % (0.0 if answer == 0 else answer))


main(sys.argv[1:])
