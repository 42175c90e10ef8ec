// A file mapped read-only into memory.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace nsrt {

// The pages are those of the page cache: opening costs nothing, and a file that is cut short while it is mapped takes
// the process down on the next read past its end, as with every mmap.
class MappedFile {
 public:
  // Throws CheckpointError with the path and the system's reason. Anything but a regular file is refused.
  explicit MappedFile(const std::string& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;

  const std::string& path() const { return path_; }
  const std::byte* data() const { return data_; }
  std::size_t size() const { return size_; }
  std::string_view text() const { return {reinterpret_cast<const char*>(data_), size_}; }

  // Hints that the whole file is about to be read once, front to back; `false` takes the hint back.
  void advise_sequential(bool on) const;

 private:
  std::string path_;
  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

// The file's whole text. Throws CheckpointError, also where it is longer than `max_bytes`.
std::string read_text(const std::string& path, std::size_t max_bytes);

}  // namespace nsrt
