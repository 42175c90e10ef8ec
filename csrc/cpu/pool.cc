#include "cpu/pool.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cfenv>
#include <new>
#include <system_error>
#include <utility>

#include "core/check.h"

namespace nsrt::cpu {
namespace {

constexpr int kMaxThreads = 1024;
// A partner that runs is late by microseconds: spin that long. One that does not run may want this very core: offer it,
// for about as long as waking a sleeper costs. Then sleep.
constexpr int kSpins = 300;
constexpr int kYields = 200;

inline void relax() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Returns once `word` differs from `old`.
void wait_while(const std::atomic<std::uint32_t>& word, std::uint32_t old) {
  for (int i = 0; i < kSpins; ++i) {
    if (word.load(std::memory_order_acquire) != old) return;
    relax();
  }
  for (int i = 0; i < kYields; ++i) {
    if (word.load(std::memory_order_acquire) != old) return;
    sched_yield();
  }
  word.wait(old, std::memory_order_acquire);
}

// The caller's rounding and flush-to-zero modes must not make its share of the numbers differ from the others'.
class DefaultFloatEnvironment {
 public:
  DefaultFloatEnvironment() {
    std::fegetenv(&saved_);
    std::fesetenv(FE_DFL_ENV);
  }
  ~DefaultFloatEnvironment() { std::fesetenv(&saved_); }
  DefaultFloatEnvironment(const DefaultFloatEnvironment&) = delete;
  DefaultFloatEnvironment& operator=(const DefaultFloatEnvironment&) = delete;

 private:
  std::fenv_t saved_;
};

}  // namespace

Pool::Pool(int threads) : size_(threads), pid_(getpid()) {
  check<InvalidRequest>(threads >= 0 && threads <= kMaxThreads, "threads is ", threads, "; it must be between 1 and ",
                        kMaxThreads, " (or 0 for all cores)");
  if (size_ == 0) size_ = std::min(usable_cores(), kMaxThreads);
  threads_.reserve(static_cast<std::size_t>(size_));
  try {
    for (int id = 1; id < size_; ++id) threads_.emplace_back([this, id] { work(id); });
  } catch (const std::system_error& e) {
    stop();
    throw Error(str("could not start thread ", threads_.size() + 1, " of ", size_ - 1, ": ", e.what(),
                    "; ask for fewer threads"));
  }
}

Pool::~Pool() {
  if (getpid() == pid_) {
    stop();
    return;
  }
  // In a forked child these handles name no thread, or by now somebody else's: they must not be touched, and
  // destroying a joinable one would end the process.
  [[maybe_unused]] auto* abandoned = new (std::nothrow) std::vector<std::thread>(std::move(threads_));
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
  run_member(0);
  if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
}

void Pool::run_member(int id) {
  {
    const DefaultFloatEnvironment environment;
    Team team(*this, id, size_);
    try {
      (*task_)(team);
    } catch (...) {
      const std::lock_guard lock(error_mutex_);
      if (!error_) error_ = std::current_exception();
    }
  }
  barrier();  // all are done with the task
}

void Pool::work(int id) {
  std::uint32_t seen = 0;
  for (;;) {
    wait_while(generation_, seen);
    ++seen;
    if (quit_) return;
    run_member(id);
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
    wait_while(phase_, phase);
  }
}

}  // namespace nsrt::cpu
