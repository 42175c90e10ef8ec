#include "clocks.h"

#include <algorithm>

namespace emu {

std::uint32_t Clock::of(ThreadId id) const {
  if (!data_) return 0;
  const auto& entries = data_->entries;
  const auto found = std::ranges::lower_bound(entries, id.block(), {}, &Entry::block);
  if (found == entries.end() || found->block != id.block()) return 0;
  const auto& times = found->times->of_slot;
  return id.slot() < times.size() ? times[id.slot()] : 0;
}

void Clock::raise(ThreadId id, std::uint32_t time) {
  if (of(id) >= time) return;
  auto& entries = data_.own().entries;
  auto found = std::ranges::lower_bound(entries, id.block(), {}, &Entry::block);
  if (found == entries.end() || found->block != id.block()) found = entries.insert(found, {id.block(), {}});
  auto& times = found->times.own().of_slot;
  if (times.size() <= id.slot()) times.resize((id.slot() / 64 + 1) * 64);
  times[id.slot()] = time;
}

void Clock::join(const Clock& other) {
  if (!other.data_ || data_ == other.data_) return;
  if (!data_) {
    data_ = other.data_;
    return;
  }
  auto& entries = data_.own().entries;
  std::size_t at = 0;
  for (const Entry& theirs : other.data_->entries) {
    while (at < entries.size() && entries[at].block < theirs.block) ++at;
    if (at == entries.size() || entries[at].block != theirs.block)
      entries.insert(entries.begin() + static_cast<std::ptrdiff_t>(at), theirs);
    else
      join_times(entries[at].times, theirs.times);
  }
}

// Keeps whichever of the two already is the maximum, so that it stays shared.
void Clock::join_times(Counted<Times>& into, const Counted<Times>& from) {
  if (into == from) return;
  const auto &mine = into->of_slot, &theirs = from->of_slot;
  const std::size_t both = std::min(mine.size(), theirs.size());
  std::uint32_t behind = theirs.size() > both, ahead = mine.size() > both;
  for (std::size_t i = 0; i < both; ++i) {
    behind |= mine[i] < theirs[i];
    ahead |= mine[i] > theirs[i];
  }
  if (!behind) return;
  if (!ahead) {
    into = from;
    return;
  }
  auto& own = into.own().of_slot;
  if (own.size() < from->of_slot.size()) own.resize(from->of_slot.size());
  for (std::size_t i = 0; i < from->of_slot.size(); ++i) own[i] = std::max(own[i], from->of_slot[i]);
}

}  // namespace emu
