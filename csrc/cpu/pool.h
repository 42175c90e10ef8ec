// A persistent team of threads that run one function together, with barriers inside it: the loop creates no thread and
// wakes the team once a token.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace nsrt::cpu {

class Pool;

// One member's view of the team, inside Pool::run.
class Team {
 public:
  Team(Pool& pool, int id, int size) : pool_(pool), id_(id), size_(size) {}
  int id() const { return id_; }
  int size() const { return size_; }
  // All members' writes before it are seen by all after it.
  void barrier();
  // How many there have been in this pool; for member 0 alone.
  std::int64_t barriers() const;

  // This member's share of [0, n) in units of `unit`.
  struct Range {
    std::int64_t begin, end;
  };
  Range share(std::int64_t n, std::int64_t unit = 1) const {
    const std::int64_t units = (n + unit - 1) / unit;
    const std::int64_t begin = units * id_ / size_ * unit, end = units * (id_ + 1) / size_ * unit;
    return {begin < n ? begin : n, end < n ? end : n};
  }

 private:
  Pool& pool_;
  int id_, size_;
};

class Pool {
 public:
  // 0 threads: one for each core this process may use. Throws InvalidRequest on a negative or absurd number, Error
  // when the system refuses a thread.
  explicit Pool(int threads);
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  int size() const { return size_; }
  // Runs task(member) on every member, in the default floating-point environment, and returns when all are done. The
  // caller is member 0. A task that has barriers must not throw; from others the first exception reaches the caller.
  // Throws Error in a forked child, where the other members do not exist.
  void run(const std::function<void(Team&)>& task);

 private:
  friend class Team;
  void work(int id);
  void run_member(int id);
  void barrier();
  void stop();

  int size_;
  int pid_;
  std::vector<std::thread> threads_;
  const std::function<void(Team&)>* task_ = nullptr;
  bool quit_ = false;
  std::mutex error_mutex_;
  std::exception_ptr error_;
  std::int64_t barriers_ = 0;  // member 0's
  // Each on its own cache line: the waiting side reads one of them all the time.
  alignas(64) std::atomic<std::uint32_t> generation_{0};
  alignas(64) std::atomic<std::uint32_t> arrived_{0};
  alignas(64) std::atomic<std::uint32_t> phase_{0};
};

inline void Team::barrier() {
  if (id_ == 0) ++pool_.barriers_;
  pool_.barrier();
}
inline std::int64_t Team::barriers() const { return pool_.barriers_; }

// Cores this process may use: its affinity, or what a container's CPU quota leaves of it.
int usable_cores();

}  // namespace nsrt::cpu
