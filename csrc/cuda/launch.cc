#include "cuda/launch.h"

#include <algorithm>
#include <map>
#include <mutex>
#include <optional>

namespace nsrt::cuda {
namespace {

// Where code has griddepcontrol (ptx.cuh). What was compiled for an older GPU lacks it on a newer one, too.
constexpr int kOverlapsFrom = 90;

// By the code alone: to try another call would be refused, and end the recording, while a stream is recorded.
bool is_lost(cudaError_t code) {
  switch (code) {
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchFailure:
    case cudaErrorLaunchTimeout:
    case cudaErrorIllegalInstruction:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorHardwareStackError:
    case cudaErrorAssert:
    case cudaErrorECCUncorrectable:
    case cudaErrorNvlinkUncorrectable:
    case cudaErrorContextIsDestroyed:
    case cudaErrorMpsClientTerminated:
    case cudaErrorExternalDevice:
      return true;
    default:  // names that toolkits before 13.0 do not have: cudaErrorContained, cudaErrorTensorMemoryLeak
      return static_cast<int>(code) == 226 || static_cast<int>(code) == 721;
  }
}

// For its lifetime, the calling thread may do what a recording of its own would refuse. Asking for a kernel may load
// it, which nothing that is recorded depends on.
class OutsideRecording {
 public:
  OutsideRecording() { check_cuda(cudaThreadExchangeStreamCaptureMode(&mode_), "preparing a kernel"); }
  ~OutsideRecording() { cudaThreadExchangeStreamCaptureMode(&mode_); }
  OutsideRecording(const OutsideRecording&) = delete;
  OutsideRecording& operator=(const OutsideRecording&) = delete;

 private:
  cudaStreamCaptureMode mode_ = cudaStreamCaptureModeRelaxed;
};

// What prepare() found, by kernel and device.
class KnownKernels {
 public:
  std::optional<KernelTraits> find(const void* kernel, int device) {
    const std::lock_guard lock(mutex_);
    const auto found = known_.find({device, kernel});
    return found == known_.end() ? std::nullopt : std::optional(found->second);
  }
  void add(const void* kernel, int device, const KernelTraits& traits) {
    const std::lock_guard lock(mutex_);
    known_[{device, kernel}] = traits;
  }
  void forget(int device) {
    const std::lock_guard lock(mutex_);
    std::erase_if(known_, [&](const auto& entry) { return entry.first.first == device; });
  }

 private:
  std::mutex mutex_;
  std::map<std::pair<int, const void*>, KernelTraits> known_;
};

KnownKernels& known_kernels() {
  static KnownKernels known;
  return known;
}

KernelTraits prepare(const char* name, const void* kernel, int device) {
  const OutsideRecording outside;
  cudaFuncAttributes attributes = {};
  check_cuda(cudaFuncGetAttributes(&attributes, kernel), name);
  int most = 0;
  check_cuda(cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device), name);
  const int dynamic = most - static_cast<int>(attributes.sharedSizeBytes);
  check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, dynamic), name);
  // The same split of L1 for all of our kernels, the one that has most shared memory: one kernel's blocks start beside
  // another's only where none of them needs another split.
  check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout,
                                  static_cast<int>(cudaSharedmemCarveoutMaxShared)),
             name);
  return {.overlaps = std::min(attributes.ptxVersion, attributes.binaryVersion) >= kOverlapsFrom,
          .shared_limit = static_cast<std::size_t>(dynamic)};
}

}  // namespace

void check_cuda(cudaError_t code, const char* what) {
  if (code == cudaSuccess) return;
  cudaGetLastError();  // forget it, where it can be forgotten
  throw Error(str(what, " failed on the GPU: ", cudaGetErrorString(code), " (", cudaGetErrorName(code), ")",
                  is_lost(code) ? "; the GPU takes no more work from this process: start it again" : ""));
}

KernelTraits prepare_kernel(const char* name, const void* kernel) {
  int device = 0;
  check_cuda(cudaGetDevice(&device), "asking for the current GPU");
  if (const auto known = known_kernels().find(kernel, device)) return *known;
  // Not under the lock: it may compile the kernel's whole module. Twice at once does no harm.
  const KernelTraits traits = prepare(name, kernel, device);
  known_kernels().add(kernel, device, traits);
  return traits;
}

void forget_kernels(int device) { known_kernels().forget(device); }

}  // namespace nsrt::cuda
