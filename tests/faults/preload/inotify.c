/* Preloaded into a process: files report no events, as on a network file system. */
#include <stdint.h>

int inotify_add_watch(int handle, const char *path, uint32_t mask) {
  (void)handle, (void)path, (void)mask;
  return 1;
}

int inotify_rm_watch(int handle, int watch) {
  (void)handle, (void)watch;
  return 0;
}
