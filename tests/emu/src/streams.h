// Streams, events and graphs. Work is done when it is issued, so a stream remembers only what it records, and up to
// when the host has waited for it.
#pragma once

#include <cuda_runtime_api.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "machine.h"

namespace emu {

struct Stream;
using Work = std::function<cudaError_t(Machine&, Stream&)>;

struct Recording {
  std::vector<Work> work;
  Stream* origin = nullptr;
  bool spoiled = false;  // by a call that a recording does not allow
};

struct Stream {
  // Times of the machine: of the latest work, and before which the host knows all work to be done.
  std::uint32_t last_work = 0, synchronized = 0;
  // Set while the stream captures; by an event, other streams may take part.
  std::shared_ptr<Recording> recording;
};

Stream& default_stream();
// Null stands for the default stream; unknown handles are refused.
Stream* stream_of(cudaStream_t handle);
// Does the work, or records it.
cudaError_t enqueue(cudaStream_t handle, Work work);
// Refuses a call that the calling thread may not make while it records, and spoils the recording.
cudaError_t not_while_recording(const char* function);
// The host has waited for the stream's work before that time.
void synchronize(Stream& stream, std::uint32_t before);

}  // namespace emu

struct CUstream_st : emu::Stream {};

struct CUevent_st {
  bool timed = true, recorded = false;
  std::chrono::steady_clock::time_point at;
  std::uint32_t machine_time = 0;
  CUstream_st* stream = nullptr;
  std::shared_ptr<emu::Recording> recording;
};

struct CUgraph_st {
  std::vector<emu::Work> work;
};

struct CUgraphExec_st {
  std::vector<emu::Work> work;
};
