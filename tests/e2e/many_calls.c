/* Runs a command once for each record on stdin: records end with RS, their arguments are separated by US. Answers with a
 * record of exit status, stdout and stderr for each. So that a table goes through an image in one container. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MOST_WORDS = 32, MOST_INPUT = 1 << 20, MOST_OUTPUT = 1 << 16, RS = 0x1e, US = 0x1f };

static char input[MOST_INPUT + 1];

static size_t read_all(int from, char *into, size_t most)
{
    size_t got = 0;
    ssize_t now;

    while (got < most && (now = read(from, into + got, most - got)) > 0)
        got += (size_t)now;
    return got;
}

static void answer(char **words)
{
    static char said[2][MOST_OUTPUT];
    size_t length[2] = {0, 0};
    int out[2], err[2], status;
    pid_t child;

    if (pipe(out) || pipe(err) || (child = fork()) < 0)
        exit(70);
    if (child == 0) {
        dup2(out[1], 1);
        dup2(err[1], 2);
        close(0);
        execvp(words[0], words);
        _exit(127);
    }
    close(out[1]);
    close(err[1]);
    length[0] = read_all(out[0], said[0], MOST_OUTPUT);
    length[1] = read_all(err[0], said[1], MOST_OUTPUT);
    close(out[0]);
    close(err[0]);
    waitpid(child, &status, 0);
    printf("%d%c", WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status), US);
    fwrite(said[0], 1, length[0], stdout);
    putchar(US);
    fwrite(said[1], 1, length[1], stdout);
    putchar(RS);
    fflush(stdout);
}

int main(int count, char **command)
{
    char *words[MOST_WORDS + 1];
    char *at = input;
    size_t length = read_all(0, input, MOST_INPUT);
    char *end = input + length;

    while (at < end) {
        char *stop = memchr(at, RS, (size_t)(end - at));
        int filled = 0;

        if (stop == NULL)
            return 65;
        *stop = '\0';
        for (int word = 1; word < count; word++)
            words[filled++] = command[word];
        while (at < stop && filled < MOST_WORDS) {
            words[filled++] = at;
            at += strcspn(at, "\x1f");
            *at++ = '\0';
        }
        words[filled] = NULL;
        answer(words);
        at = stop + 1;
    }
    return 0;
}
