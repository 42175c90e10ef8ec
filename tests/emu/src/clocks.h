// Vector clocks over the threads of a grid. They are copied at every barrier and hardly differ between the threads of a
// block, so both levels are shared until written: the clock, and in it the times of each block's threads.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

namespace emu {

// A thread of the grid, or the copies that it started and that run beside it. 24 bits.
class ThreadId {
 public:
  static constexpr std::uint32_t kMostBlocks = 8191;  // the last is for what is no thread of the grid
  ThreadId() = default;
  ThreadId(std::uint32_t block, std::uint32_t thread) : bits_(block << 11 | thread << 1) {}
  static ThreadId from_bits(std::uint32_t bits) {
    ThreadId id;
    id.bits_ = bits;
    return id;
  }
  static ThreadId outside() { return {kMostBlocks, 0}; }
  ThreadId copies() const { return from_bits(bits_ | 1); }
  bool is_copy() const { return bits_ & 1; }
  std::uint32_t bits() const { return bits_; }
  std::uint32_t block() const { return bits_ >> 11; }
  std::uint32_t thread() const { return bits_ >> 1 & 1023; }
  // Its place among its block's times.
  std::uint32_t slot() const { return bits_ & 2047; }

 private:
  std::uint32_t bits_ = 0;
};

// A pointer that counts, for one OS thread at a time.
template <class T>
class Counted {
 public:
  Counted() = default;
  Counted(const Counted& other) : object_(other.object_) {
    if (object_) ++object_->owners;
  }
  Counted(Counted&& other) noexcept : object_(std::exchange(other.object_, nullptr)) {}
  Counted& operator=(Counted other) noexcept {
    std::swap(object_, other.object_);
    return *this;
  }
  ~Counted() {
    if (object_ && --object_->owners == 0) delete object_;
  }
  explicit operator bool() const { return object_ != nullptr; }
  bool operator==(const Counted& other) const { return object_ == other.object_; }
  const T* get() const { return object_; }
  const T* operator->() const { return object_; }
  // For writing: a copy of its own if it is shared.
  T& own() {
    if (object_ == nullptr) {
      object_ = new T;
    } else if (object_->owners > 1) {
      --object_->owners;
      object_ = new T(*object_);
      object_->owners = 1;
    }
    return *object_;
  }

 private:
  T* object_ = nullptr;
};

class Clock {
 public:
  std::uint32_t of(ThreadId id) const;
  void raise(ThreadId id, std::uint32_t time);
  void join(const Clock& other);
  const void* identity() const { return data_.get(); }

 private:
  struct Times {
    std::uint32_t owners = 1;
    std::vector<std::uint32_t> of_slot;
  };
  struct Entry {
    std::uint32_t block;
    Counted<Times> times;
  };
  struct Data {
    std::uint32_t owners = 1;
    std::vector<Entry> entries;  // by block
  };
  static void join_times(Counted<Times>& into, const Counted<Times>& from);

  Counted<Data> data_;
};

}  // namespace emu
