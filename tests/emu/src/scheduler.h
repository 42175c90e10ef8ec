// Which device thread runs next. Threads that spin run only when all others wait, and a kernel in which nothing but
// spinning is left is stuck.
#pragma once

#include <cstdint>
#include <vector>

#include "policy.h"
#include "threads.h"

namespace emu {

class Scheduler {
 public:
  explicit Scheduler(std::uint64_t seed) : policy_(Policy::of(seed)), random_(seed) {}

  void add(Warp& warp);
  void make_ready(Thread& thread);
  void make_polling(Thread& thread) { thread.warp->polling |= 1u << thread.lane; }
  // Null when no thread can run, or when those that can only spin.
  Thread* next();
  bool spinning() const { return spinning_; }

  // Something happened that a spinning thread may have waited for.
  void note_progress() { ++progress_; }
  // Makes the next thread come from any warp.
  void leave_warp() { at_ = random_.below(static_cast<unsigned>(warps_.size())); }

  const Policy& policy() const { return policy_; }
  Random& random() { return random_; }

 private:
  static constexpr int kIdleRounds = 2000;
  void choose_warp();
  Thread& take_lane(Warp& warp);
  bool ready_from(unsigned begin);
  bool wake_polling();
  void mark_ready(const Warp& warp) { ready_[warp.index / 64] |= std::uint64_t{1} << warp.index % 64; }

  Policy policy_;
  Random random_;
  std::vector<Warp*> warps_;
  std::vector<std::uint64_t> ready_;  // a bit for each warp with ready lanes
  unsigned at_ = 0;                   // the warp that runs
  std::uint64_t progress_ = 0, seen_progress_ = 0;
  int idle_rounds_ = 0;
  bool spinning_ = false;
};

}  // namespace emu
