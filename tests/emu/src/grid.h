// One launch: its blocks, as many at a time as are resident, until all have ended or one thread has failed.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "emu/launch.h"
#include "machine.h"
#include "race.h"
#include "scheduler.h"
#include "threads.h"

namespace emu {

struct GridShape {
  dim3 grid, block;
  std::size_t dynamic_bytes = 0;
  // How many blocks run at a time; those after them start when one has ended.
  std::size_t resident = 1;
  // May start before the kernels since `dependencies_since` in the stream have ended.
  bool programmatic = false;
  std::uint32_t dependencies_since = 0;
  const void* kernel = nullptr;
};

class Grid {
 public:
  Grid(Machine& machine, const GridShape& shape, const KernelCall& call);
  // Empty if all went well, else what did not.
  std::string run();

  Machine& machine() { return machine_; }
  std::uint64_t seed() const { return machine_.settings.seed; }
  Scheduler& scheduler() { return scheduler_; }
  RaceDetector& races() { return races_; }
  const GridShape& shape() const { return shape_; }
  const std::vector<std::unique_ptr<Block>>& blocks() const { return slots_; }

  // ---- on the current device thread

  // Runs others until somebody makes this thread ready.
  void wait(Thread& thread, const char* doing, const Caller& at);
  // Lets any other run first.
  void yield(Thread& thread);
  // Lets all others run first.
  void poll(Thread& thread, const char* doing, const void* code);
  // Keeps what went wrong and leaves the kernel; the thread's stack is abandoned.
  [[noreturn]] void fail(std::string what);
  // Counts against the launch's budget.
  void step() {
    if (++steps_ > machine_.settings.step_budget) [[unlikely]]
      out_of_steps();
  }

 private:
  static void thread_main();
  void start_block(Block& block, unsigned linear);
  void start_thread(Block& block, unsigned index);
  void end_thread(Thread& thread);
  void run_next(Fiber& from, bool for_good = false);
  void refill();
  bool some_ended() const;
  [[noreturn]] void out_of_steps();

  Machine& machine_;
  const GridShape shape_;
  const KernelCall& call_;
  Scheduler scheduler_;
  RaceDetector races_;
  const unsigned block_threads_, block_count_;
  std::vector<unsigned> order_;  // in which blocks start
  unsigned started_ = 0, ended_ = 0;
  std::vector<std::unique_ptr<Block>> slots_;
  Fiber host_;
  std::uint64_t steps_ = 0;
  std::string failure_;
};

// Ends the launch of the current device thread.
[[noreturn]] void fail(std::string what);

}  // namespace emu
