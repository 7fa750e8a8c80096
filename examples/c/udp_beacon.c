/* A beacon over UDP in C, with nothing but sockets: one reading, which is sent again until its ack says that it is stored.
 *
 *     cc -o udp_beacon udp_beacon.c
 *     ./udp_beacon [HOST [PORT [DEVICE [KEY]]]]
 *
 * The key is the device's password, for a gateway that knows its devices. docs/udp.md has the line's grammar, and the signature
 * that keeps the key off the network. */

#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#define TRIES 5

static int open_socket(const char *host, const char *port) {
  struct addrinfo hints = {.ai_socktype = SOCK_DGRAM}, *found, *at;
  struct timeval patience = {.tv_sec = 2};
  int fd = -1;
  if (getaddrinfo(host, port, &hints, &found) != 0)
    return -1;
  for (at = found; at != NULL && fd < 0; at = at->ai_next) {
    fd = socket(at->ai_family, at->ai_socktype, at->ai_protocol);
    if (fd >= 0 && connect(fd, at->ai_addr, at->ai_addrlen) != 0) {
      close(fd);
      fd = -1;
    }
  }
  freeaddrinfo(found);
  if (fd >= 0)
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  return fd;
}

int main(int argc, char **argv) {
  const char *host = argc > 1 ? argv[1] : "127.0.0.1", *port = argc > 2 ? argv[2] : "7683";
  const char *device = argc > 3 ? argv[3] : "beacon-1", *key = argc > 4 ? argv[4] : "";
  char datagram[1024], answer[256];
  int length, fd = open_socket(host, port);
  if (fd < 0) {
    fprintf(stderr, "%s port %s cannot be reached\n", host, port);
    return 1;
  }
  /* Present for a minute and a half from each word on: hb is how often it speaks, in seconds. */
  length = snprintf(datagram, sizeof datagram, "LF1 %s%s%s seq=1 hb=60 ack\n{\"volts\":3.1}", device, *key ? " key=" : "", key);
  if (length < 0 || (size_t)length >= sizeof datagram)
    return 1;
  for (int tries = 0; tries < TRIES; tries++) {
    ssize_t got = -1;
    if (send(fd, datagram, (size_t)length, 0) >= 0)
      got = recv(fd, answer, sizeof answer - 1, 0);
    if (got >= 0) {
      answer[got] = '\0';
      if (strncmp(answer, "LF1 ack seq=1", 13) == 0) {
        printf("stored\n");
        return 0;
      }
    }
  }
  fprintf(stderr, "no ack after %d tries\n", TRIES);
  return 1;
}
