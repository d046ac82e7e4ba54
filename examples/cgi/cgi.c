/* A program of WASI preview 1 that answers requests as programs of CGI do: the request is in the environment, the
 * body on stdin, and the response goes to stdout. Nothing in it knows midge. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *variable(const char *name) {
    const char *value = getenv(name);
    return value ? value : "";
}

/* Counts lines, words and bytes of what stands on stdin. */
static void count(void) {
    unsigned long lines = 0, words = 0, bytes = 0;
    int in_word = 0, c;
    while ((c = getchar()) != EOF) {
        bytes++;
        lines += c == '\n';
        words += !in_word && !isspace(c);
        in_word = !isspace(c);
    }
    printf("%lu lines, %lu words, %lu bytes\n", lines, words, bytes);
}

int main(void) {
    const char *path = variable("PATH_INFO");
    if (strcmp(variable("REQUEST_METHOD"), "POST") == 0) {
        /* No header before it: all of the output is the body. */
        count();
        return 0;
    }
    if (strcmp(path, "/cgi/exit") == 0) {
        fprintf(stderr, "asked to fail\n");
        return 3;
    }
    if (strcmp(path, "/cgi/away") == 0) {
        printf("Location: /cgi\r\n\r\n");
        return 0;
    }
    if (strcmp(path, "/cgi") != 0) {
        printf("Status: 404 Not Found\r\nContent-Type: text/plain\r\n\r\nno %s here\n", path);
        return 0;
    }
    printf("Content-Type: text/plain\r\nX-Interface: %s\r\n\r\n", variable("GATEWAY_INTERFACE"));
    printf("%s, query \"%s\", agent \"%s\"\n", path, variable("QUERY_STRING"), variable("HTTP_USER_AGENT"));
    return 0;
}
