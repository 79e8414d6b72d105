/* Preloaded into a process: moves its clock by the seconds that the file CLOCK_STEP holds. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long step(void) {
  char found[32] = {0};
  const char *file = getenv("CLOCK_STEP");
  int handle = file ? (int)syscall(SYS_openat, AT_FDCWD, file, O_RDONLY) : -1;
  if (handle < 0) return 0;
  (void)!syscall(SYS_read, handle, found, sizeof found - 1);
  syscall(SYS_close, handle);
  return strtol(found, NULL, 10);
}

int clock_gettime(clockid_t clock, struct timespec *at) {
  int result = (int)syscall(SYS_clock_gettime, clock, at);
  if (!result && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) at->tv_sec += step();
  return result;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone) {
  (void)zone;
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  at->tv_sec = now.tv_sec;
  at->tv_usec = now.tv_nsec / 1000;
  return 0;
}

time_t time(time_t *at) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (at) *at = now.tv_sec;
  return now.tv_sec;
}
