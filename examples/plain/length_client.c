/* A client of the length wire: length_client PORT COMMAND */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    int s = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(s, (struct sockaddr *)&to, sizeof to) || write(s, argv[2], strlen(argv[2])) < 0) return 1;
    unsigned char buffer[65536];
    long left = 0;
    for (int at = 0; at < 4; at++) {
        if (read(s, buffer, 1) != 1) return 1;
        left |= (long)buffer[0] << (8 * at); /* little-endian, whatever this machine is */
    }
    for (ssize_t got; left > 0; left -= got) {
        if ((got = read(s, buffer, left < 65536 ? left : 65536)) <= 0) return 1;
        fwrite(buffer, 1, got, stdout);
    }
    return 0;
}
