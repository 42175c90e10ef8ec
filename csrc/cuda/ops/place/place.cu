#include <algorithm>
#include <cstdint>

#include "cuda/launch.h"
#include "cuda/ops/place/place.h"

namespace nsrt::cuda {
namespace {

constexpr int kMaxWords = 960;  // a launch's arguments are at most 4,096 bytes
constexpr int kPlaceThreads = 128;

struct PlaceTask {
  std::uint32_t* to = nullptr;
  std::int32_t count = 0;
  std::uint32_t words[kMaxWords] = {};
};

__global__ void __launch_bounds__(kPlaceThreads) place_words_kernel(const __grid_constant__ PlaceTask task) {
  for (int i = static_cast<int>(threadIdx.x); i < task.count; i += kPlaceThreads) task.to[i] = task.words[i];
}

}  // namespace

void place_words(void* to, std::span<const std::uint32_t> words, cudaStream_t stream) {
  for (std::size_t i = 0; i < words.size(); i += kMaxWords) {
    const auto part = words.subspan(i, std::min<std::size_t>(kMaxWords, words.size() - i));
    PlaceTask task{.to = static_cast<std::uint32_t*>(to) + i, .count = static_cast<std::int32_t>(part.size())};
    std::copy(part.begin(), part.end(), task.words);
    launch("place_words", place_words_kernel, {.grid = dim3(1), .block = dim3(kPlaceThreads), .stream = stream}, task);
  }
}

const void* place_words_code() { return reinterpret_cast<const void*>(place_words_kernel); }

// They come with the launch: writing them is all there is.
Cost cost(std::span<const std::uint32_t> words) { return {.bytes = static_cast<std::int64_t>(words.size_bytes())}; }

}  // namespace nsrt::cuda
