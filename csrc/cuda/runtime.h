// The CUDA runtime's objects with owners. Every call is checked; destructors cannot throw, and what they cannot do is
// left to the end of the process.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>

#include "cuda/launch.h"

namespace nsrt::cuda {

// The calling thread works on this device until the end of the scope.
class DeviceScope {
 public:
  explicit DeviceScope(int device);
  ~DeviceScope();
  DeviceScope(const DeviceScope&) = delete;
  DeviceScope& operator=(const DeviceScope&) = delete;

 private:
  int before_ = 0;
};

struct DeviceTraits {
  std::string name;
  int sm_count = 0;
  int shared_limit = 0;  // bytes a block may have
  int major = 0, minor = 0;
  std::int64_t l2_bytes = 0;
};

// Throws Error where there is no such device, it is older than sm_80, or this build has no code for it.
DeviceTraits device_traits(int device);

// Bytes that can still be allocated on the current device.
std::uint64_t free_device_memory();

// Throws Error where `code` is none of success: what an allocation for `purpose` answered. Where there was no room, it
// says how much was wanted, if that is known, and how much there is.
void check_room(cudaError_t code, const char* purpose, std::uint64_t bytes = 0);

// Device memory. Allocation throws as check_room() does.
class DeviceMemory {
 public:
  DeviceMemory() = default;
  DeviceMemory(std::size_t bytes, const char* purpose);
  ~DeviceMemory();
  DeviceMemory(DeviceMemory&& other) noexcept { *this = std::move(other); }
  DeviceMemory& operator=(DeviceMemory&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }

  void* data() const { return data_; }
  std::size_t bytes() const { return bytes_; }

 private:
  void* data_ = nullptr;
  std::size_t bytes_ = 0;
};

template <class T>
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  DeviceBuffer(std::size_t count, const char* purpose) : memory_(count * sizeof(T), purpose), count_(count) {}

  T* data() const { return static_cast<T*>(memory_.data()); }
  std::size_t size() const { return count_; }
  std::size_t bytes() const { return memory_.bytes(); }

 private:
  DeviceMemory memory_;
  std::size_t count_ = 0;
};

// Host memory that the device copies from and to by itself.
class PinnedMemory {
 public:
  PinnedMemory() = default;
  explicit PinnedMemory(std::size_t bytes);
  ~PinnedMemory();
  PinnedMemory(PinnedMemory&& other) noexcept { *this = std::move(other); }
  PinnedMemory& operator=(PinnedMemory&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }

  std::byte* data() const { return static_cast<std::byte*>(data_); }
  std::size_t bytes() const { return bytes_; }

 private:
  void* data_ = nullptr;
  std::size_t bytes_ = 0;
};

class Stream {
 public:
  Stream();
  ~Stream();
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  cudaStream_t get() const { return stream_; }
  // Waits; throws what the work before it failed with.
  void synchronize() const;
  void copy(void* to, const void* from, std::size_t bytes) const;
  void zero(void* to, std::size_t bytes) const;

  template <class T>
  void upload(const DeviceBuffer<T>& to, std::span<const T> from) const {
    copy(to.data(), from.data(), from.size_bytes());
  }

 private:
  cudaStream_t stream_ = nullptr;
};

class Event {
 public:
  Event();
  ~Event();
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;

  void record(const Stream& stream) const;
  void wait() const;

 private:
  cudaEvent_t event_ = nullptr;
};

// A recorded sequence of launches and copies.
class Graph {
 public:
  Graph() = default;
  ~Graph();
  Graph(Graph&& other) noexcept { *this = std::move(other); }
  Graph& operator=(Graph&& other) noexcept {
    std::swap(executable_, other.executable_);
    return *this;
  }

  // Records what `work` enqueues on the stream. Where it throws, the recording is dropped.
  template <class F>
  static Graph record(const Stream& stream, F&& work) {
    begin(stream);
    try {
      work();
    } catch (...) {
      drop(stream);
      throw;
    }
    return end(stream);
  }

  bool empty() const { return executable_ == nullptr; }
  void launch(const Stream& stream) const;

 private:
  static void begin(const Stream& stream);
  static void drop(const Stream& stream);
  static Graph end(const Stream& stream);

  cudaGraphExec_t executable_ = nullptr;
};

}  // namespace nsrt::cuda
