/* A program of WASI preview 1 that looks a name up in a file of its own: GET /lookup?NAME gives the port and the
 * protocol of a service. The file is packed with the program and mapped from its artifact; nothing is read from a
 * disk. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LINE_BYTES_MAX 256

static int fail(const char *status, const char *text) {
    printf("Status: %s\r\nContent-Type: text/plain\r\n\r\n%s\n", status, text);
    return 0;
}

int main(void) {
    const char *name = getenv("QUERY_STRING");
    if (!name || !*name) {
        return fail("400 Bad Request", "name a service: /lookup?https");
    }
    FILE *ports = fopen("/data/ports.tsv", "r");
    if (!ports) {
        perror("/data/ports.tsv");
        return fail("500 Internal Server Error", "there is no list of ports");
    }
    char line[LINE_BYTES_MAX];
    size_t size = strlen(name);
    while (fgets(line, sizeof line, ports)) {
        if (strncmp(line, name, size) == 0 && line[size] == '\t') {
            printf("Content-Type: text/tab-separated-values\r\n\r\n%s", line);
            return 0;
        }
    }
    return fail("404 Not Found", "no such service");
}
