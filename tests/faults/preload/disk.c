/* Preloaded into a process: writes down what it does to the files of one folder, and makes it fail.

   DISK_FOLDER  the folder; other files are not touched
   DISK_TRACE   where to append a record of each operation: see trace.py
   DISK_FAULT   a file that holds one word: full, readonly, sync (fsync fails) or nothing
*/
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { CREATE = 1, WRITE, TRUNCATE, SYNC, UNLINK, RENAME, SYNC_FOLDER };
#define MOST_FILES 4096

struct record { uint64_t time; uint32_t kind, path; uint64_t offset, length; } __attribute__((packed));

static char *names[MOST_FILES];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int trace_file = -2;

static int watched(const char *path) {
  const char *folder = getenv("DISK_FOLDER");
  return folder && path && !strncmp(path, folder, strlen(folder)) && !strstr(path, "-shm");
}

static const char *name_of(int file) { return file >= 0 && file < MOST_FILES ? names[file] : NULL; }

static uint64_t now(void) {
  struct timespec at;
  clock_gettime(CLOCK_MONOTONIC, &at);
  return (uint64_t)at.tv_sec * 1000000000u + (uint64_t)at.tv_nsec;
}

static void note(uint32_t kind, const char *path, uint64_t offset, const void *data, size_t length) {
  pthread_mutex_lock(&lock);
  if (trace_file == -2) {
    const char *file = getenv("DISK_TRACE");
    trace_file = file ? (int)syscall(SYS_openat, AT_FDCWD, file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644) : -1;
  }
  if (trace_file >= 0) {
    struct record head = {now(), kind, (uint32_t)strlen(path), offset, length};
    struct iovec parts[3] = {{&head, sizeof head}, {(void *)path, head.path}, {(void *)data, data ? length : 0}};
    (void)!syscall(SYS_writev, trace_file, parts, 3);
  }
  pthread_mutex_unlock(&lock);
}

static int fault(const char *word) {
  const char *file = getenv("DISK_FAULT");
  char found[16] = {0};
  int handle = file ? (int)syscall(SYS_openat, AT_FDCWD, file, O_RDONLY) : -1;
  if (handle < 0) return 0;
  (void)!syscall(SYS_read, handle, found, sizeof found - 1);
  syscall(SYS_close, handle);
  return !strncmp(found, word, strlen(word));
}

static int refused(void) {
  if (fault("full")) return errno = ENOSPC;
  if (fault("readonly")) return errno = EROFS;
  return 0;
}

static int opened(int file, const char *path, int flags, int is_new) {
  if (file >= 0 && file < MOST_FILES && watched(path)) {
    free(names[file]);
    names[file] = strdup(path);
    if (is_new || flags & O_TRUNC) note(CREATE, path, 0, NULL, 0);
  }
  return file;
}

static int open_file(int folder, const char *path, int flags, mode_t mode) {
  struct stat seen;
  int is_new = flags & O_CREAT && watched(path) && stat(path, &seen);
  if (watched(path) && is_new && fault("full")) return errno = ENOSPC, -1;
  if (watched(path) && flags & (O_WRONLY | O_RDWR) && fault("readonly")) return errno = EROFS, -1;
  return opened((int)syscall(SYS_openat, folder, path, flags, mode), path, flags, is_new);
}

#define MODE mode_t mode = 0; if (flags & O_CREAT) { va_list rest; va_start(rest, flags); mode = va_arg(rest, mode_t); va_end(rest); }
int open(const char *path, int flags, ...) { MODE return open_file(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE return open_file(AT_FDCWD, path, flags | O_LARGEFILE, mode); }
int openat(int folder, const char *path, int flags, ...) { MODE return open_file(folder, path, flags, mode); }
int openat64(int folder, const char *path, int flags, ...) { MODE return open_file(folder, path, flags | O_LARGEFILE, mode); }

int close(int file) {
  if (name_of(file)) { free(names[file]); names[file] = NULL; }
  return (int)syscall(SYS_close, file);
}

ssize_t pwrite64(int file, const void *data, size_t length, off64_t offset) {
  if (name_of(file)) {
    if (refused()) return -1;
    note(WRITE, name_of(file), (uint64_t)offset, data, length);
  }
  return syscall(SYS_pwrite64, file, data, length, offset);
}
ssize_t pwrite(int file, const void *data, size_t length, off_t offset) { return pwrite64(file, data, length, offset); }

ssize_t write(int file, const void *data, size_t length) {
  if (name_of(file)) {
    if (refused()) return -1;
    note(WRITE, name_of(file), (uint64_t)syscall(SYS_lseek, file, 0, SEEK_CUR), data, length);
  }
  return syscall(SYS_write, file, data, length);
}

int ftruncate64(int file, off64_t length) {
  if (name_of(file)) {
    if (refused()) return -1;
    note(TRUNCATE, name_of(file), (uint64_t)length, NULL, 0);
  }
  return (int)syscall(SYS_ftruncate, file, length);
}
int ftruncate(int file, off_t length) { return ftruncate64(file, length); }

static int synced(int file, long call) {
  struct stat seen;
  if (name_of(file) && fault("sync")) return errno = EIO, -1;
  int result = (int)syscall(call, file);
  if (name_of(file) && !result)
    note(!fstat(file, &seen) && S_ISDIR(seen.st_mode) ? SYNC_FOLDER : SYNC, name_of(file), 0, NULL, 0);
  return result;
}
int fsync(int file) { return synced(file, SYS_fsync); }
int fdatasync(int file) { return synced(file, SYS_fdatasync); }

int unlink(const char *path) {
  if (watched(path)) {
    if (fault("readonly")) return errno = EROFS, -1;
    note(UNLINK, path, 0, NULL, 0);
  }
  return (int)syscall(SYS_unlinkat, AT_FDCWD, path, 0);
}

int rename(const char *from, const char *to) {
  if (watched(from)) note(RENAME, from, 0, to, strlen(to));
  return (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
}
