#include "cpu/pool.h"

#include <sched.h>
#include <unistd.h>

#include <system_error>

#include "core/check.h"

namespace nsrt::cpu {
namespace {

constexpr int kMaxThreads = 1024;
// About 50 us on current cores: longer than any imbalance of the loop, shorter than a scheduler's time slice.
constexpr int kSpins = 4000;

inline void relax() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

int usable_cores() {
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) return CPU_COUNT(&set);
#endif
  const unsigned n = std::thread::hardware_concurrency();
  return n == 0 ? 1 : static_cast<int>(n);
}

}  // namespace

void Waiter::wait_while(const std::atomic<std::uint32_t>& word, std::uint32_t old) {
  for (int i = 0; i < kSpins; ++i) {
    if (word.load(std::memory_order_acquire) != old) return;
    relax();
  }
  word.wait(old, std::memory_order_acquire);
}

Pool::Pool(int threads) : size_(threads), pid_(getpid()) {
  check<InvalidRequest>(threads >= 0 && threads <= kMaxThreads, "threads is ", threads, "; it must be between 1 and ",
                        kMaxThreads, " (or 0 for all cores)");
  if (size_ == 0) size_ = usable_cores();
  try {
    for (int id = 1; id < size_; ++id) threads_.emplace_back([this, id] { work(id); });
  } catch (const std::system_error& e) {
    stop();
    throw Error(str("could not start thread ", threads_.size() + 1, " of ", size_ - 1, ": ", e.what(),
                    "; ask for fewer threads"));
  }
}

Pool::~Pool() {
  // A forked child has copies of the thread handles but not the threads.
  if (getpid() != pid_)
    for (std::thread& t : threads_) t.detach();
  else
    stop();
}

void Pool::stop() {
  quit_ = true;
  generation_.fetch_add(1, std::memory_order_release);
  generation_.notify_all();
  for (std::thread& t : threads_) t.join();
}

void Pool::run(const std::function<void(Team&)>& task) {
  check(getpid() == pid_, "this engine was made before fork(); make a new one in the child process");
  task_ = &task;
  generation_.fetch_add(1, std::memory_order_release);
  generation_.notify_all();
  Team team(*this, 0, size_);
  task(team);
  barrier();  // the others are done with `task`
}

void Pool::work(int id) {
  std::uint32_t seen = 0;
  for (;;) {
    Waiter::wait_while(generation_, seen);
    ++seen;
    if (quit_) return;
    Team team(*this, id, size_);
    (*task_)(team);
    barrier();
  }
}

void Pool::barrier() {
  if (size_ == 1) return;
  const std::uint32_t phase = phase_.load(std::memory_order_acquire);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == static_cast<std::uint32_t>(size_)) {
    arrived_.store(0, std::memory_order_relaxed);
    phase_.fetch_add(1, std::memory_order_release);
    phase_.notify_all();
  } else {
    Waiter::wait_while(phase_, phase);
  }
}

}  // namespace nsrt::cpu
