#include "streams.h"

#include <algorithm>
#include <set>
#include <utility>

#include "api.h"

namespace emu {
namespace {

std::set<CUstream_st*>& live_streams() {
  static auto& made = *new std::set<CUstream_st*>;
  return made;
}

bool is_idle(const Stream& stream) { return stream.last_work < stream.synchronized || stream.last_work == 0; }

bool all_idle() {
  return is_idle(default_stream()) && std::ranges::all_of(live_streams(), [](const Stream* s) { return is_idle(*s); });
}

// Of the calling thread: what it may do while it records, and the recordings that it has begun so.
thread_local cudaStreamCaptureMode capture_mode = cudaStreamCaptureModeGlobal;
thread_local std::vector<std::shared_ptr<Recording>> strict_recordings;

cudaError_t not_while_capturing() {
  return refuse(cudaErrorStreamCaptureUnsupported, "the host cannot wait for a stream that is being captured");
}

}  // namespace

Stream& default_stream() {
  static Stream& made = *new Stream;
  return made;
}

Stream* stream_of(cudaStream_t handle) {
  if (handle == nullptr) return &default_stream();
  return live_streams().contains(handle) ? handle : nullptr;
}

cudaError_t enqueue(cudaStream_t handle, Work work) {
  Stream* stream = stream_of(handle);
  if (stream == nullptr) return cudaErrorInvalidResourceHandle;
  if (!stream->recording) {
    const cudaError_t error = work(machine(), *stream);
    stream->last_work = machine().time;
    return error;
  }
  stream->recording->work.push_back(std::move(work));
  return cudaSuccess;
}

cudaError_t not_while_recording(const char* function) {
  if (strict_recordings.empty() || capture_mode == cudaStreamCaptureModeRelaxed) return cudaSuccess;
  for (const auto& recording : strict_recordings) recording->spoiled = true;
  return refuse(cudaErrorStreamCaptureUnsupported, std::string(function) + " by a thread that records a graph");
}

void synchronize(Stream& stream, std::uint32_t before) {
  stream.synchronized = std::max(stream.synchronized, before);
  if (!all_idle()) return;
  // What other streams have done is then over too, for this stream and for them.
  default_stream().synchronized = machine().time + 1;
  for (Stream* other : live_streams()) other->synchronized = machine().time + 1;
}

}  // namespace emu

using emu::api;
using emu::api_release;
using emu::Machine;
using emu::stream_of;

// ---- streams

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  return api("cudaStreamCreateWithFlags", [&](Machine& device) {
    *stream = new CUstream_st;
    if (emu::all_idle()) (*stream)->synchronized = device.time + 1;
    emu::live_streams().insert(*stream);
    return cudaSuccess;
  });
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  return api_release("cudaStreamDestroy", [&](Machine&) {
    if (emu::live_streams().erase(stream) == 0) return cudaErrorInvalidResourceHandle;
    delete stream;
    return cudaSuccess;
  });
}

cudaError_t cudaDeviceSynchronize() {
  return api("cudaDeviceSynchronize", [&](Machine& device) {
    emu::synchronize(emu::default_stream(), device.time + 1);
    for (emu::Stream* stream : emu::live_streams()) emu::synchronize(*stream, device.time + 1);
    return cudaSuccess;
  });
}

cudaError_t cudaStreamSynchronize(cudaStream_t handle) {
  return api("cudaStreamSynchronize", [&](Machine& device) {
    emu::Stream* stream = stream_of(handle);
    if (stream == nullptr) return cudaErrorInvalidResourceHandle;
    if (stream->recording) return emu::not_while_capturing();
    emu::synchronize(*stream, device.time + 1);
    return cudaSuccess;
  });
}

cudaError_t cudaStreamWaitEvent(cudaStream_t handle, cudaEvent_t event, unsigned) {
  return api("cudaStreamWaitEvent", [&](Machine&) {
    emu::Stream* stream = stream_of(handle);
    if (stream == nullptr || event == nullptr) return cudaErrorInvalidResourceHandle;
    if (event->recording) stream->recording = event->recording;
    return cudaSuccess;
  });
}

// ---- events

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  return api("cudaEventCreateWithFlags", [&](Machine&) {
    *event = new CUevent_st;
    (*event)->timed = !(flags & cudaEventDisableTiming);
    return cudaSuccess;
  });
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  return api_release("cudaEventDestroy", [&](Machine&) {
    delete event;
    return cudaSuccess;
  });
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t handle) {
  return api("cudaEventRecord", [&](Machine& device) {
    const emu::Stream* stream = stream_of(handle);
    if (stream == nullptr || event == nullptr) return cudaErrorInvalidResourceHandle;
    event->recorded = true;
    event->at = std::chrono::steady_clock::now();
    event->machine_time = device.time + 1;
    event->stream = handle;
    event->recording = stream->recording;
    return cudaSuccess;
  });
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  return api("cudaEventSynchronize", [&](Machine&) {
    if (event == nullptr) return cudaErrorInvalidResourceHandle;
    if (event->recording) return emu::not_while_capturing();
    emu::Stream* stream = event->recorded ? stream_of(event->stream) : nullptr;
    if (stream) emu::synchronize(*stream, event->machine_time);
    return cudaSuccess;
  });
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
  return api("cudaEventQuery", [&](Machine&) {
    if (event == nullptr) return cudaErrorInvalidResourceHandle;
    return event->recording ? emu::not_while_capturing() : cudaSuccess;
  });
}

cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end) {
  return api("cudaEventElapsedTime", [&](Machine&) {
    if (start == nullptr || end == nullptr || !start->recorded || !end->recorded || !start->timed || !end->timed)
      return cudaErrorInvalidResourceHandle;
    *milliseconds = std::chrono::duration<float, std::milli>(end->at - start->at).count();
    return cudaSuccess;
  });
}

// ---- graphs

cudaError_t cudaStreamBeginCapture(cudaStream_t handle, cudaStreamCaptureMode mode) {
  return api("cudaStreamBeginCapture", [&](Machine&) {
    emu::Stream* stream = stream_of(handle);
    if (stream == nullptr) return cudaErrorInvalidResourceHandle;
    if (handle == nullptr) return emu::refuse(cudaErrorStreamCaptureUnsupported, "the default stream cannot capture");
    if (stream->recording) return cudaErrorIllegalState;
    stream->recording = std::make_shared<emu::Recording>();
    stream->recording->origin = stream;
    if (mode != cudaStreamCaptureModeRelaxed) emu::strict_recordings.push_back(stream->recording);
    return cudaSuccess;
  });
}

cudaError_t cudaStreamEndCapture(cudaStream_t handle, cudaGraph_t* graph) {
  return api("cudaStreamEndCapture", [&](Machine&) {
    emu::Stream* stream = stream_of(handle);
    if (stream == nullptr) return cudaErrorInvalidResourceHandle;
    if (!stream->recording || stream->recording->origin != stream) return cudaErrorIllegalState;
    const auto recording = stream->recording;
    for (CUstream_st* other : emu::live_streams())
      if (other->recording == recording) other->recording = nullptr;
    std::erase(emu::strict_recordings, recording);
    *graph = recording->spoiled ? nullptr : new CUgraph_st{recording->work};
    return recording->spoiled ? cudaErrorStreamCaptureInvalidated : cudaSuccess;
  });
}

cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode) {
  std::swap(*mode, emu::capture_mode);
  return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long) {
  return api("cudaGraphInstantiate", [&](Machine&) {
    *executable = new CUgraphExec_st{graph->work};
    return cudaSuccess;
  });
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t handle) {
  return api("cudaGraphLaunch", [&](Machine& device) {
    emu::Stream* stream = stream_of(handle);
    if (stream == nullptr) return cudaErrorInvalidResourceHandle;
    if (stream->recording) return emu::refuse(cudaErrorNotSupported, "the emulator captures no graph within a graph");
    cudaError_t error = cudaSuccess;
    for (auto work = executable->work.begin(); work != executable->work.end() && error == cudaSuccess; ++work)
      error = (*work)(device, *stream);
    stream->last_work = device.time;
    return error;
  });
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  return api_release("cudaGraphDestroy", [&](Machine&) {
    delete graph;
    return cudaSuccess;
  });
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
  return api_release("cudaGraphExecDestroy", [&](Machine&) {
    delete executable;
    return cudaSuccess;
  });
}
