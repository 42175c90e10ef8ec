#include "warps.h"

#include <bit>
#include <cstring>
#include <string>

#include "grid.h"
#include "report.h"

namespace emu {
namespace {

Collective& collective_of(Warp& warp, std::uint32_t mask) {
  for (const auto& found : warp.collectives)
    if (found->mask == mask) return *found;
  Collective& made = *warp.collectives.emplace_back(std::make_unique<Collective>());
  made.mask = mask;
  return made;
}

void check_lanes(const Thread& thread, std::uint32_t mask, const char* operation) {
  if (!(mask >> thread.lane & 1)) fail(std::string(operation) + ": the calling lane is not in its own mask");
  if (mask & ~thread.warp->live) fail(std::string(operation) + ": the mask names lanes that have ended");
}

std::uint32_t combined(Reduction reduction, std::uint32_t a, std::uint32_t b) {
  const auto x = static_cast<std::int32_t>(a), y = static_cast<std::int32_t>(b);
  switch (reduction) {
    case Reduction::sum:
      return a + b;
    case Reduction::smallest:
      return x < y ? a : b;
    case Reduction::largest:
      return x > y ? a : b;
    case Reduction::smallest_unsigned:
      return a < b ? a : b;
    case Reduction::largest_unsigned:
      return a > b ? a : b;
    case Reduction::bits_or:
      return a | b;
    case Reduction::bits_and:
      return a & b;
    default:
      return a ^ b;
  }
}

}  // namespace

const LaneValues& meet_lanes(std::uint32_t mask, const char* operation, const void* value, std::size_t bytes,
                             const Caller& caller, void (*finish)(std::uint32_t mask, LaneValues& values)) {
  Thread& thread = device_thread();
  check_lanes(thread, mask, operation);
  Grid& grid = *thread.block->grid;
  Collective& collective = collective_of(*thread.warp, mask);
  if (collective.arrived == 0) {
    collective.operation = operation;
    collective.at = caller;
  } else if (collective.operation != operation || !same_place(collective.at, caller)) {
    fail(std::string("divergent warp: ") + operation + " at " + place(caller) + ", while other lanes wait in " +
         collective.operation + " at " + place(collective.at));
  }
  LaneValues& values = collective.values[collective.generation % 2];
  std::memcpy(values[thread.lane], value, bytes);
  collective.arrived |= 1u << thread.lane;
  if (collective.arrived != mask) {
    grid.wait(thread, operation, caller);
    return values;
  }
  if (finish) finish(mask, values);
  collective.arrived = 0;
  ++collective.generation;
  grid.scheduler().note_progress();
  for (std::uint32_t rest = mask & ~(1u << thread.lane); rest; rest &= rest - 1)
    grid.scheduler().make_ready(thread.warp->threads[std::countr_zero(rest)]);
  return values;
}

void warp_barrier(std::uint32_t mask, const Caller& caller) {
  const CoreCall call;
  meet_lanes(mask, "__syncwarp", &mask, sizeof mask, caller, [](std::uint32_t lanes, LaneValues&) {
    Thread* threads[kWarpLanes];
    std::size_t count = 0;
    for (; lanes; lanes &= lanes - 1) threads[count++] = &current->warp->threads[std::countr_zero(lanes)];
    current->block->grid->races().meet({threads, count});
  });
}

void shuffle(std::uint32_t mask, const char* operation, void* value, unsigned bytes, unsigned source,
             const Caller& caller) {
  const CoreCall call;
  if (!(mask >> source & 1))
    fail(std::string(operation) + " at " + place(caller) + " reads lane " + std::to_string(source) +
         ", which is not in its mask");
  const LaneValues& values = meet_lanes(mask, operation, value, bytes, caller);
  std::memcpy(value, values[source], bytes);
}

std::uint32_t reduce(std::uint32_t mask, Reduction reduction, std::uint32_t value, const Caller& caller) {
  const CoreCall call;
  const LaneValues& values = meet_lanes(mask, "a warp reduction", &value, sizeof value, caller);
  std::uint32_t result = 0;
  bool first = true;
  for (std::uint32_t rest = mask; rest; rest &= rest - 1) {
    std::uint32_t next;
    std::memcpy(&next, values[std::countr_zero(rest)], sizeof next);
    result = first ? next : combined(reduction, result, next);
    first = false;
  }
  return result;
}

std::uint32_t live_lanes() { return device_thread().warp->live; }

}  // namespace emu
