/* The smallest server of the lab's cold starts: a static program that answers every request with sixteen bytes.
 *
 *   program PORT     listens on the loopback address
 *   program serial   answers on the first serial line, as the only process of a machine
 *
 * One connection at a time, no parser: a request ends with a blank line.
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <termios.h>
#include <unistd.h>

static const char response[] = "HTTP/1.1 200 OK\r\ncontent-length: 16\r\n"
                               "content-type: text/plain\r\n\r\nsixteen bytes ok";

static void write_all(int file, const char *bytes, size_t size)
{
    while (size > 0) {
        ssize_t written = write(file, bytes, size);
        if (written <= 0)
            return;
        bytes += written;
        size -= (size_t)written;
    }
}

/* Answers until the other side ends. */
static void serve(int file)
{
    static const char end[] = "\r\n\r\n";
    char bytes[4096];
    size_t matched = 0;
    ssize_t size;
    while ((size = read(file, bytes, sizeof bytes)) > 0) {
        for (ssize_t at = 0; at < size; at++) {
            if (bytes[at] == end[matched])
                matched++;
            else
                matched = bytes[at] == '\r';
            if (matched == 4) {
                write_all(file, response, sizeof response - 1);
                matched = 0;
            }
        }
    }
}

/* A first process has no default actions. */
static void leave(int signal)
{
    (void)signal;
    _exit(0);
}

static int serve_serial(void)
{
    struct termios settings;
    int line = open("/dev/ttyS0", O_RDWR | O_NOCTTY);
    if (line < 0 || tcgetattr(line, &settings) != 0)
        return 1;
    cfmakeraw(&settings);
    settings.c_cflag |= CLOCAL;
    if (tcsetattr(line, TCSANOW, &settings) != 0)
        return 1;
    /* What was sent before the line was open is lost: this says that it is. */
    write_all(line, "!", 1);
    for (;;)
        serve(line);
}

int main(int count, char **words)
{
    signal(SIGTERM, leave);
    signal(SIGPIPE, SIG_IGN);
    if (count < 2)
        return 2;
    if (strcmp(words[1], "serial") == 0)
        return serve_serial();
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((unsigned short)atoi(words[1]))};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int one = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, sizeof address) != 0 || listen(listener, 64) != 0)
        return 1;
    for (;;) {
        int connection = accept(listener, NULL, NULL);
        if (connection < 0)
            continue;
        serve(connection);
        close(connection);
    }
}
