/* NUM OP NUM -> the answer of IEEE double arithmetic, as %.17g. See ../README.md. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { USAGE = 64, DATA = 65, OUTPUT = 74, LONGEST = 60 };

static void refuse(int status, const char *sentence)
{
    fprintf(stderr, "%s\n", sentence);
    exit(status);
}

static const char *digits(const char *at)
{
    return at + strspn(at, "0123456789");
}

/* Where the mantissa of a decimal number ends, or NULL when the text is no such number. */
static const char *mantissa(const char *text)
{
    const char *whole = text + (*text == '+' || *text == '-');
    const char *point = digits(whole);
    const char *end = *point == '.' ? digits(point + 1) : point;
    int has_digits = point > whole || (*point == '.' && end > point + 1);
    const char *rest = end;

    if (!has_digits)
        return NULL;
    if (*rest == 'e' || *rest == 'E') {
        const char *power = rest + 1;
        power += *power == '+' || *power == '-';
        rest = digits(power);
        if (rest == power)
            return NULL;
    }
    return *rest == '\0' ? end : NULL;
}

static double number(const char *text)
{
    const char *end = strlen(text) <= LONGEST ? mantissa(text) : NULL;
    double value;

    if (end == NULL)
        refuse(USAGE, "NUM is a decimal number like -1.5e3, of at most 60 characters.");
    value = strtod(text, NULL);
    if (isinf(value) || (value == 0 && text + strcspn(text, "123456789") < end))
        refuse(DATA, "A number lies outside the range of a double.");
    return value;
}

int main(int count, char **words)
{
    double left, right, answer;

    if (count != 4 || strlen(words[2]) != 1 || strchr("+-*/", words[2][0]) == NULL)
        refuse(USAGE, "Say it in three arguments: NUM OP NUM, where OP is + - * or /.");
    left = number(words[1]);
    right = number(words[3]);
    switch (words[2][0]) {
    case '+':
        answer = left + right;
        break;
    case '-':
        answer = left - right;
        break;
    case '*':
        answer = left * right;
        break;
    default:
        if (right == 0)
            refuse(DATA, "Division by zero.");
        answer = left / right;
    }
    if (isinf(answer))
        refuse(DATA, "The answer lies outside the range of a double.");
    if (printf("%.17g\n", answer == 0 ? 0.0 : answer) < 0 || fflush(stdout) != 0)
        return OUTPUT;
    return 0;
}
