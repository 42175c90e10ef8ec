#include "core/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <limits>
#include <system_error>
#include <utility>

#include "core/check.h"
#include "core/json.h"

namespace nsrt {
namespace {

struct FileDescriptor {
  int fd;
  ~FileDescriptor() {
    if (fd >= 0) ::close(fd);
  }
};

std::string reason(int error) { return std::generic_category().message(error); }

}  // namespace

MappedFile::MappedFile(const std::string& path) : path_(path) {
  check<CheckpointError>(path.find('\0') == std::string::npos, "the path ", quoted(path), " holds a NUL character");
  // Without O_NONBLOCK, opening a named pipe would wait for a writer.
  const FileDescriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
  check<CheckpointError>(file.fd >= 0, "cannot open ", path, ": ", reason(errno));
  struct stat status = {};
  const bool known = ::fstat(file.fd, &status) == 0;
  check<CheckpointError>(known, "cannot read ", path, ": ", reason(errno));
  check<CheckpointError>(S_ISREG(status.st_mode), "cannot read ", path, ": not a regular file");
  check<CheckpointError>(static_cast<std::uint64_t>(status.st_size) <= std::numeric_limits<std::size_t>::max() / 2,
                         "cannot map ", path, ": ", status.st_size, " bytes do not fit the address space");
  size_ = static_cast<std::size_t>(status.st_size);
  if (size_ == 0) return;  // mmap refuses an empty range
  // Copy on write: views of the weights are handed out through protocols whose readers may ignore "read-only", and a
  // stray write must not kill the process. Nothing is reserved for copies that nobody makes.
  void* mapping = ::mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, file.fd, 0);
  if (mapping == MAP_FAILED) mapping = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file.fd, 0);
  check<CheckpointError>(mapping != MAP_FAILED, "cannot map ", path, " (", size_, " bytes): ", reason(errno));
  data_ = static_cast<const std::byte*>(mapping);
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, std::size_t{0})) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

void MappedFile::advise_sequential(bool on) const {
  // Only a hint: a kernel that refuses it reads all the same.
  if (data_ != nullptr) ::madvise(const_cast<std::byte*>(data_), size_, on ? MADV_SEQUENTIAL : MADV_NORMAL);
}

std::string read_text(const std::string& path, std::size_t max_bytes) {
  const MappedFile file(path);
  check<CheckpointError>(file.size() <= max_bytes, path, " has ", file.size(), " bytes; at most ", max_bytes,
                         " are read");
  return std::string(file.text());
}

}  // namespace nsrt
