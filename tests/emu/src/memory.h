// The memory of the device that is emulated: one mapping, of which the first part is global memory and the rest, in
// slots, the shared memory of resident blocks. What is handed out is filled with NaNs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>

#include "shadow.h"

namespace emu {

constexpr std::size_t kGlobalBytes = std::size_t{1} << 30;
constexpr std::size_t kMostSharedBytes = 227 * 1024;  // of a block
constexpr std::size_t kSlotBytes = 512 * 1024;        // the dynamic bytes, then the arrays carved from them, apart
constexpr std::size_t kMostSlots = 256;
constexpr std::size_t kArenaBytes = kGlobalBytes + kMostSlots * kSlotBytes;
// Nobody's, before and after every array.
constexpr std::size_t kGlobalRedZone = 256;
constexpr std::size_t kSharedRedZone = 64;

class Memory {
 public:
  Memory();

  // SIZE_MAX and more for what lies elsewhere.
  std::size_t offset_of(const void* p) const {
    return static_cast<std::size_t>(static_cast<const std::byte*>(p) - begin_);
  }
  bool contains(const void* p) const { return offset_of(p) < kArenaBytes; }
  std::byte* slot(std::size_t index) const { return begin_ + kGlobalBytes + index * kSlotBytes; }
  Shadow& shadow() { return shadow_; }

  // Null when `limit` bytes, or the mapping, are used up.
  void* allocate(std::size_t bytes, std::size_t limit);
  bool release(void* p);
  std::size_t used() const { return used_; }

  struct Allocation {
    std::size_t begin, bytes, number;
  };
  // The array that an offset of global memory belongs to, its red zones included; null if it is nobody's.
  const Allocation* find(std::size_t offset) const;
  // Does the range lie within one array?
  bool holds(const void* p, std::size_t bytes) const;

  void open(std::byte* p, std::size_t bytes);
  void close(std::byte* p, std::size_t bytes);
  // A copy or a fill from outside of kernels has written the range.
  void written(const void* p, std::size_t bytes, std::uint32_t time);

 private:
  std::size_t gap_from(std::size_t begin, std::size_t bytes) const;

  std::byte* begin_ = nullptr;
  Shadow shadow_;
  std::map<std::size_t, Allocation> allocations_;
  // Space is used again as late as possible, so that what is freed stays out of bounds.
  std::size_t next_ = kGlobalRedZone;
  std::size_t used_ = 0, made_ = 0;
};

}  // namespace emu
