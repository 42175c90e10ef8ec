#include "core/finite.h"

#include <algorithm>
#include <utility>

namespace nsrt {
namespace {

constexpr std::uint64_t kProgressBytes = std::uint64_t{64} << 20;
// A fixed count lets the compiler vectorise the inner loop at -O2; a block is left early once it is bad.
constexpr std::size_t kBlock = 1024;

// A float is NaN or infinite exactly where all bits of its exponent are one.
template <class Bits, Bits kExponent>
bool all_finite_bits(const Bits* data, std::size_t count) {
  std::size_t i = 0;
  for (; i + kBlock <= count; i += kBlock) {
    Bits bad = 0;
    for (std::size_t j = 0; j < kBlock; ++j)
      bad = static_cast<Bits>(bad | ((data[i + j] & kExponent) == kExponent ? Bits{1} : Bits{0}));
    if (bad != 0) return false;
  }
  for (; i < count; ++i)
    if ((data[i] & kExponent) == kExponent) return false;
  return true;
}

class SequentialRead {
 public:
  explicit SequentialRead(const MappedFile& file) : file_(file) { file_.advise_sequential(true); }
  ~SequentialRead() { file_.advise_sequential(false); }
  SequentialRead(const SequentialRead&) = delete;
  SequentialRead& operator=(const SequentialRead&) = delete;

 private:
  const MappedFile& file_;
};

// Scans tensors piece by piece, and keeps count for the progress reports.
class Scanner {
 public:
  Scanner(std::uint64_t total, const std::function<bool(std::uint64_t, std::uint64_t)>& progress)
      : total_(total), progress_(progress) {}

  bool stopped() const { return stopped_; }
  bool is_finite(const TensorView& view) {
    const auto* data = static_cast<const std::byte*>(view.data);
    const std::size_t item = item_size(view.dtype);
    bool finite = true;
    for (std::size_t left = view.nbytes(); left != 0 && !stopped_;) {
      const std::size_t bytes = std::min<std::size_t>(left, kProgressBytes);
      finite = finite && all_finite(data, bytes / item, view.dtype);
      data += bytes;
      left -= bytes;
      advance(bytes);
    }
    return finite;
  }

 private:
  void advance(std::size_t bytes) {
    done_ += bytes;
    if (done_ - reported_ < kProgressBytes && done_ != total_) return;
    reported_ = done_;
    stopped_ = progress_ && !progress_(done_, total_);
  }

  std::uint64_t total_;
  const std::function<bool(std::uint64_t, std::uint64_t)>& progress_;
  std::uint64_t done_ = 0;
  std::uint64_t reported_ = 0;
  bool stopped_ = false;
};

}  // namespace

bool all_finite(const void* data, std::size_t count, DType dtype) {
  if (dtype == DType::kFloat32)
    return all_finite_bits<std::uint32_t, 0x7F800000>(static_cast<const std::uint32_t*>(data), count);
  return all_finite_bits<std::uint16_t, 0x7F80>(static_cast<const std::uint16_t*>(data), count);
}

std::vector<std::string> find_non_finite(const std::vector<SafetensorsFile>& files,
                                         const std::function<bool(std::uint64_t, std::uint64_t)>& progress) {
  std::uint64_t total = 0;
  for (const SafetensorsFile& file : files)
    for (const auto& [name, view] : file.tensors()) total += view.nbytes();
  Scanner scanner(total, progress);
  std::vector<std::string> bad;
  for (const SafetensorsFile& file : files) {
    std::vector<std::pair<std::string, TensorView>> order(file.tensors().begin(), file.tensors().end());
    std::sort(order.begin(), order.end(),
              [](const auto& a, const auto& b) { return std::less<>()(a.second.data, b.second.data); });
    const SequentialRead hint(file.file());
    for (const auto& [name, view] : order) {
      if (!scanner.is_finite(view)) bad.push_back(name);
      if (scanner.stopped()) return bad;
    }
  }
  return bad;
}

}  // namespace nsrt
