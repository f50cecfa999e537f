// A clock that can be set while a process runs: preloaded, it adds to the time of day what a file says, in
// milliseconds as a 64-bit integer. Monotonic time is left alone, as it is when somebody sets a computer's clock.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *offset_ms;
static int (*real_clock_gettime)(clockid_t, struct timespec *);

__attribute__((constructor)) static void begin(void) {
  real_clock_gettime = dlsym(RTLD_NEXT, "clock_gettime");
  const char *path = getenv("MESHQ_FAULT_CLOCK");
  int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
  if (file < 0) {
    return;
  }
  void *found = mmap(NULL, sizeof(int64_t), PROT_READ, MAP_SHARED, file, 0);
  if (found != MAP_FAILED) {
    offset_ms = found;
  }
  close(file);
}

static void shift(struct timespec *now) {
  int64_t ms = offset_ms ? *offset_ms : 0;
  now->tv_sec += ms / 1000;
  now->tv_nsec += (ms % 1000) * 1000000;
  if (now->tv_nsec >= 1000000000) {
    now->tv_sec += 1;
    now->tv_nsec -= 1000000000;
  } else if (now->tv_nsec < 0) {
    now->tv_sec -= 1;
    now->tv_nsec += 1000000000;
  }
}

int clock_gettime(clockid_t clock, struct timespec *now) {
  int failed = real_clock_gettime(clock, now);
  if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
    shift(now);
  }
  return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
  (void)zone;
  struct timespec exact;
  if (clock_gettime(CLOCK_REALTIME, &exact)) {
    return -1;
  }
  now->tv_sec = exact.tv_sec;
  now->tv_usec = exact.tv_nsec / 1000;
  return 0;
}

time_t time(time_t *to) {
  struct timespec now;
  if (clock_gettime(CLOCK_REALTIME, &now)) {
    return (time_t)-1;
  }
  if (to) {
    *to = now.tv_sec;
  }
  return now.tv_sec;
}
