#include "emu/launch.h"

#include <algorithm>
#include <map>
#include <string>

#include "api.h"
#include "control_state.h"
#include "grid.h"
#include "occupancy.h"
#include "streams.h"

namespace emu {
namespace {

constexpr std::size_t kDynamicBytesUnlessAsked = 48 * 1024;

// By cudaFuncSetAttribute.
std::map<const void*, std::size_t>& dynamic_limits() {
  static auto& made = *new std::map<const void*, std::size_t>;
  return made;
}

std::size_t dynamic_limit(const void* kernel) {
  const auto asked = dynamic_limits().find(kernel);
  return asked == dynamic_limits().end() ? kDynamicBytesUnlessAsked : asked->second;
}

struct LaunchOptions {
  bool cooperative = false, programmatic = false;
};

std::string read_options(const cudaLaunchConfig_t& config, LaunchOptions& options) {
  for (unsigned i = 0; i < config.numAttrs; ++i) {
    const cudaLaunchAttribute& attribute = config.attrs[i];
    if (attribute.id == cudaLaunchAttributeCooperative)
      options.cooperative = attribute.val.cooperative != 0;
    else if (attribute.id == cudaLaunchAttributeProgrammaticStreamSerialization)
      options.programmatic = attribute.val.programmaticStreamSerializationAllowed != 0;
    else
      return "the emulator does not know launch attribute " + std::to_string(attribute.id);
  }
  return {};
}

cudaError_t check_config(const cudaLaunchConfig_t& config, const void* kernel, const LaunchOptions& options,
                         std::size_t resident_at_most) {
  const dim3 grid = config.gridDim, block = config.blockDim;
  const std::size_t threads = std::size_t{block.x} * block.y * block.z;
  const std::size_t blocks = std::size_t{grid.x} * grid.y * grid.z;
  if (threads == 0 || threads > kMostBlockThreads || blocks == 0)
    return refuse(cudaErrorInvalidConfiguration,
                  "a launch of " + std::to_string(blocks) + " blocks of " + std::to_string(threads) + " threads");
  const std::size_t limit = std::min(dynamic_limit(kernel), machine().settings.shared_limit);
  if (config.dynamicSmemBytes > limit)
    return refuse(cudaErrorInvalidValue, std::to_string(config.dynamicSmemBytes) +
                                             " bytes of dynamic shared memory, where the kernel may have " +
                                             std::to_string(limit));
  if (options.cooperative && blocks > resident_at_most) return cudaErrorCooperativeLaunchTooLarge;
  if (kRace && blocks > ThreadId::kMostBlocks)
    return refuse(cudaErrorNotSupported, "race mode takes 8191 blocks a launch");
  return cudaSuccess;
}

cudaError_t run(Machine& device, Stream& stream, GridShape shape, const KernelCall& call) {
  shape.dependencies_since = stream.synchronized;
  count_launch(shape.kernel);
  Grid grid(device, shape, call);
  const std::string failure = grid.run();
  return failure.empty() ? cudaSuccess : errors().stick(cudaErrorLaunchFailure, failure);
}

}  // namespace

cudaError_t launch(const cudaLaunchConfig_t& config, const void* kernel, std::shared_ptr<const KernelCall> call) {
  return api("cudaLaunchKernelEx", [&](Machine& device) {
    LaunchOptions options;
    if (const std::string unknown = read_options(config, options); !unknown.empty())
      return refuse(cudaErrorNotSupported, unknown);
    const dim3 block = config.blockDim, grid = config.gridDim;
    const std::size_t threads = std::max<std::size_t>(std::size_t{block.x} * block.y * block.z, 1);
    const auto sms = static_cast<std::size_t>(device.settings.sm_count);
    const std::size_t at_most = std::min(
        sms * static_cast<std::size_t>(blocks_per_sm(threads, config.dynamicSmemBytes, device.settings.shared_limit)),
        kMostSlots);
    const cudaError_t error = check_config(config, kernel, options, at_most);
    if (error != cudaSuccess) return error;
    // A launch that is not cooperative has no right to more blocks than one for each multiprocessor.
    const std::size_t blocks = std::size_t{grid.x} * grid.y * grid.z;
    GridShape shape{.grid = grid,
                    .block = block,
                    .dynamic_bytes = config.dynamicSmemBytes,
                    .resident = std::min(blocks, options.cooperative ? at_most : std::min(sms, at_most)),
                    .programmatic = options.programmatic,
                    .kernel = kernel};
    return enqueue(config.stream,
                   [shape, call](Machine& now, Stream& stream) { return run(now, stream, shape, *call); });
  });
}

}  // namespace emu

cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value) {
  return emu::api("cudaFuncSetAttribute", [&](emu::Machine& device) {
    if (attribute == cudaFuncAttributePreferredSharedMemoryCarveout) return cudaSuccess;
    const bool fits = value >= 0 && static_cast<std::size_t>(value) <= device.settings.shared_limit;
    if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize || !fits) return cudaErrorInvalidValue;
    emu::dynamic_limits()[kernel] = static_cast<std::size_t>(value);
    return cudaSuccess;
  });
}

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void* kernel) {
  return emu::api("cudaFuncGetAttributes", [&](emu::Machine& device) {
    *attributes = {};
    attributes->maxThreadsPerBlock = emu::kMostBlockThreads;
    attributes->maxDynamicSharedSizeBytes = static_cast<int>(emu::dynamic_limit(kernel));
    attributes->ptxVersion = attributes->binaryVersion = device.settings.code_version;
    return cudaSuccess;
  });
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void*, int threads,
                                                          std::size_t dynamic_bytes) {
  return emu::api("cudaOccupancyMaxActiveBlocksPerMultiprocessor", [&](emu::Machine& device) {
    if (threads <= 0 || threads > emu::kMostBlockThreads) return cudaErrorInvalidValue;
    *blocks = emu::blocks_per_sm(static_cast<std::size_t>(threads), dynamic_bytes, device.settings.shared_limit);
    return cudaSuccess;
  });
}
