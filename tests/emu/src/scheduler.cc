#include "scheduler.h"

#include <bit>

namespace emu {

void Scheduler::add(Warp& warp) {
  warp.index = static_cast<unsigned>(warps_.size());
  warps_.push_back(&warp);
  ready_.resize(warps_.size() / 64 + 1);
}

void Scheduler::make_ready(Thread& thread) {
  thread.warp->ready |= 1u << thread.lane;
  mark_ready(*thread.warp);
}

// Moves to the first warp with ready lanes at or, around the end, after `begin`.
bool Scheduler::ready_from(unsigned begin) {
  const std::size_t words = ready_.size();
  std::size_t word = begin / 64;
  std::uint64_t bits = ready_[word] & (~std::uint64_t{0} << begin % 64);
  for (std::size_t i = 0; i <= words; ++i) {
    if (bits) {
      at_ = static_cast<unsigned>(word * 64 + static_cast<unsigned>(std::countr_zero(bits)));
      return true;
    }
    word = word + 1 == words ? 0 : word + 1;
    bits = ready_[word];
  }
  return false;
}

void Scheduler::choose_warp() {
  const bool stay = warps_[at_]->ready && (policy_.stay == 100 || random_.below(100) < policy_.stay);
  if (stay) return;
  const auto count = static_cast<unsigned>(warps_.size());
  ready_from(policy_.direction == Direction::random ? random_.below(count) : (at_ + 1) % count);
}

Thread& Scheduler::take_lane(Warp& warp) {
  int lane = 0;
  switch (policy_.direction) {
    case Direction::ascending:
      lane = std::countr_zero(warp.ready);
      break;
    case Direction::descending:
      lane = 31 - std::countl_zero(warp.ready);
      break;
    case Direction::random: {
      const unsigned turn = random_.below(32);
      lane = static_cast<int>(
          (static_cast<unsigned>(std::countr_zero(std::rotr(warp.ready, static_cast<int>(turn)))) + turn) % 32);
      break;
    }
  }
  warp.ready &= ~(1u << lane);
  if (!warp.ready) ready_[warp.index / 64] &= ~(std::uint64_t{1} << warp.index % 64);
  return warp.threads[lane];
}

bool Scheduler::wake_polling() {
  bool any = false;
  for (Warp* warp : warps_) {
    if (!warp->polling) continue;
    any = true;
    warp->ready |= warp->polling;
    warp->polling = 0;
    mark_ready(*warp);
  }
  return any;
}

Thread* Scheduler::next() {
  if (warps_.empty() || spinning_) return nullptr;
  for (;;) {
    choose_warp();
    if (warps_[at_]->ready) return &take_lane(*warps_[at_]);
    if (!wake_polling()) return nullptr;
    if (progress_ != seen_progress_) {
      seen_progress_ = progress_;
      idle_rounds_ = 0;
    } else if (++idle_rounds_ > kIdleRounds) {
      spinning_ = true;
      return nullptr;
    }
  }
}

}  // namespace emu
