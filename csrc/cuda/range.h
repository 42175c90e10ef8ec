// Names of stages for a profiler's timeline (NVTX: free where no profiler listens). A recorded token is one range; its
// stages show when they are run one by one.
#pragma once

#include <nvtx3/nvToolsExt.h>

namespace nsrt::cuda {

class ProfilerRange {
 public:
  explicit ProfilerRange(const char* name) { nvtxRangePushA(name); }
  ~ProfilerRange() { nvtxRangePop(); }
  ProfilerRange(const ProfilerRange&) = delete;
  ProfilerRange& operator=(const ProfilerRange&) = delete;
};

}  // namespace nsrt::cuda
