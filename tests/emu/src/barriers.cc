// __syncthreads. It is strict: all threads of the block take part, at one place of the source.
#include <string>

#include "grid.h"
#include "report.h"

namespace emu {
namespace {

int counted(const BlockBarrier::Votes& votes, Vote vote) {
  switch (vote) {
    case Vote::any:
      return votes.any;
    case Vote::all:
      return votes.all;
    default:
      return votes.count;
  }
}

void check_meeting(const Block& block, const Caller& caller) {
  const auto expected = static_cast<unsigned>(block.threads.size());
  if (block.live != expected)
    fail("__syncthreads at " + place(caller) + " after " + std::to_string(expected - block.live) +
         " threads of the block have ended");
  if (block.barrier.arrived > 0 && !same_place(block.barrier.at, caller))
    fail("divergent barrier: __syncthreads at " + place(caller) + ", while others of the block wait at " +
         place(block.barrier.at));
}

}  // namespace

int block_barrier(int predicate, Vote vote, const Caller& caller) {
  const CoreCall call;
  Thread& thread = call.thread;
  Block& block = *thread.block;
  Grid& grid = *block.grid;
  BlockBarrier& barrier = block.barrier;
  check_meeting(block, caller);
  if (barrier.arrived == 0) {
    barrier.at = caller;
    barrier.votes = {};
  }
  barrier.votes.any |= predicate != 0;
  barrier.votes.all &= predicate != 0;
  barrier.votes.count += predicate != 0;
  barrier.waiting.push_back(&thread);
  if (++barrier.arrived < block.threads.size()) {
    grid.wait(thread, "__syncthreads", caller);
    return counted(barrier.result, vote);
  }
  grid.races().meet(barrier.waiting);
  barrier.result = barrier.votes;
  barrier.arrived = 0;
  for (Thread* other : barrier.waiting)
    if (other != &thread) grid.scheduler().make_ready(*other);
  barrier.waiting.clear();
  grid.scheduler().note_progress();
  const int result = counted(barrier.result, vote);
  // Or the last to come would always be the first to go.
  if (grid.scheduler().policy().direction != Direction::ascending) grid.yield(thread);
  return result;
}

}  // namespace emu
