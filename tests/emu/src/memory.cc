#include "memory.h"

#include <sys/mman.h>

#include <cstring>
#include <iterator>
#include <new>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(p, bytes)
#define ASAN_UNPOISON_MEMORY_REGION(p, bytes)
#endif

namespace emu {
namespace {

std::size_t rounded_up(std::size_t n) { return (n + kGlobalRedZone - 1) / kGlobalRedZone * kGlobalRedZone; }

}  // namespace

Memory::Memory() {
  void* memory = mmap(nullptr, kArenaBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  begin_ = static_cast<std::byte*>(memory);
  ASAN_POISON_MEMORY_REGION(begin_, kArenaBytes);
  if constexpr (kRace) shadow_.map(kArenaBytes);
}

// The first place at or after `begin` with room for that many bytes and a red zone; kGlobalBytes if there is none.
std::size_t Memory::gap_from(std::size_t begin, std::size_t bytes) const {
  for (auto next = allocations_.lower_bound(begin); next != allocations_.end(); ++next) {
    if (next->first >= begin + bytes + kGlobalRedZone) return begin;
    begin = rounded_up(next->first + next->second.bytes + kGlobalRedZone);
  }
  return begin + bytes + kGlobalRedZone <= kGlobalBytes ? begin : kGlobalBytes;
}

void* Memory::allocate(std::size_t bytes, std::size_t limit) {
  if (bytes > kGlobalBytes || used_ + bytes > limit) return nullptr;
  std::size_t begin = gap_from(next_, bytes);
  if (begin == kGlobalBytes) begin = gap_from(kGlobalRedZone, bytes);
  if (begin == kGlobalBytes) return nullptr;
  allocations_[begin] = {begin, bytes, made_++};
  next_ = rounded_up(begin + bytes + kGlobalRedZone);
  used_ += bytes;
  open(begin_ + begin, bytes);
  return begin_ + begin;
}

bool Memory::release(void* p) {
  const auto found = allocations_.find(offset_of(p));
  if (found == allocations_.end()) return false;
  const std::size_t bytes = found->second.bytes;
  close(static_cast<std::byte*>(p), bytes);
  used_ -= bytes;
  allocations_.erase(found);
  return true;
}

const Memory::Allocation* Memory::find(std::size_t offset) const {
  const auto above = allocations_.upper_bound(offset + kGlobalRedZone / 2);
  if (above == allocations_.begin()) return nullptr;
  const Allocation& found = std::prev(above)->second;
  return offset < found.begin + found.bytes + kGlobalRedZone ? &found : nullptr;
}

bool Memory::holds(const void* p, std::size_t bytes) const {
  const std::size_t offset = offset_of(p);
  const Allocation* array = offset < kGlobalBytes ? find(offset) : nullptr;
  return array && offset >= array->begin && offset + bytes <= array->begin + array->bytes;
}

void Memory::open(std::byte* p, std::size_t bytes) {
  ASAN_UNPOISON_MEMORY_REGION(p, bytes);
  std::memset(p, 0xff, bytes);
  if constexpr (kRace) shadow_.open(offset_of(p), bytes);
}

void Memory::close(std::byte* p, std::size_t bytes) {
  ASAN_POISON_MEMORY_REGION(p, bytes);
  if constexpr (kRace) shadow_.close(offset_of(p), bytes);
}

void Memory::written(const void* p, std::size_t bytes, std::uint32_t time) {
  if constexpr (kRace) shadow_.initialise(offset_of(p), bytes, time);
}

}  // namespace emu
