#include "cuda/device_weights.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "core/bf16.h"
#include "core/check.h"
#include "cuda/range.h"

namespace nsrt::cuda {
namespace {

constexpr std::size_t kStagingBytes = std::size_t{16} << 20;
constexpr std::size_t kAlignment = 256;

bool all_bf16(const ModelWeights& w) {
  bool all = true;
  const auto see = [&](const Linear& l) { all = all && l.w.dtype == DType::kBFloat16; };
  for (const LayerWeights& layer : w.layers)
    for (const Linear* l : {&layer.q, &layer.k, &layer.v, &layer.o, &layer.gate, &layer.up, &layer.down}) see(*l);
  for (const FmBlockWeights& block : w.fm.blocks)
    for (const Linear* l : {&block.fc1, &block.fc2, &block.modulation}) see(*l);
  for (const Linear* l : {&w.image_in, &w.image_out, &w.fm.time1, &w.fm.time2, &w.fm.cond, &w.fm.input,
                          &w.fm.final_modulation, &w.fm.output})
    see(*l);
  return all;
}

// Copies host memory that the GPU cannot read by itself: two pieces of pinned memory in turn, one being filled while
// the other is on its way.
class Stager {
 public:
  explicit Stager(const Stream& stream) : stream_(stream) {}

  void copy(const void* from, DType from_type, void* to, DType to_type, std::size_t count) {
    const std::size_t width = item_size(to_type), most = kStagingBytes / width;
    for (std::size_t done = 0; done < count; turn_ ^= 1) {
      const std::size_t n = std::min(most, count - done);
      Slot& slot = slots_[turn_];
      slot.free.wait();
      fill(slot.memory.data(), to_type, from, from_type, done, n);
      stream_.copy(static_cast<std::byte*>(to) + done * width, slot.memory.data(), n * width);
      slot.free.record(stream_);
      done += n;
    }
  }

 private:
  struct Slot {
    PinnedMemory memory{kStagingBytes};
    Event free;
  };

  static void fill(std::byte* to, DType to_type, const void* from, DType from_type, std::size_t begin, std::size_t n) {
    if (to_type == from_type) {
      const std::size_t width = item_size(from_type);
      std::memcpy(to, static_cast<const std::byte*>(from) + begin * width, n * width);
      return;
    }
    const auto* numbers = static_cast<const std::uint16_t*>(from) + begin;
    std::transform(numbers, numbers + n, reinterpret_cast<float*>(to), bf16_to_float);
  }

  const Stream& stream_;
  std::array<Slot, 2> slots_;
  std::size_t turn_ = 0;
};

}  // namespace

// Where each array will lie, and whose pointer it will be.
class DeviceWeights::Plan {
 public:
  explicit Plan(DType matrices) : matrices_(matrices) {}

  void vector(const float*& to, const float* from, std::int64_t n) {
    if (from != nullptr) add(&to, from, DType::kFloat32, DType::kFloat32, n, kAlignment);
  }

  // `to` is a DeviceLinear or an FmProduct.
  template <class Product>
  void product(Product& to, const Linear& from) {
    add(&to.w, from.w.data, from.w.dtype, matrices_, from.w.rows * from.w.cols, kAlignment);
    vector(to.bias, from.bias, from.w.rows);
  }

  void linear(DeviceLinear& to, const Linear& from) {
    to.n = static_cast<std::int32_t>(from.w.rows);
    to.k = static_cast<std::int32_t>(from.w.cols);
    product(to, from);
  }

  // A product each, their matrices one directly below the other: together they are a product, too. Rows are of whole
  // 16 bytes, so each matrix begins at a multiple of 16.
  void stacked(std::initializer_list<std::pair<DeviceLinear*, const Linear*>> parts) {
    for (std::size_t alignment = kAlignment; const auto& [to, from] : parts) {
      to->n = static_cast<std::int32_t>(from->w.rows);
      to->k = static_cast<std::int32_t>(from->w.cols);
      add(&to->w, from->w.data, from->w.dtype, matrices_, from->w.rows * from->w.cols, alignment);
      alignment = 1;
    }
    for (const auto& [to, from] : parts) vector(to->bias, from->bias, from->w.rows);
  }

  // One below the other; all have biases.
  void joined(DeviceLinear& to, const std::vector<const Linear*>& parts) {
    to.k = static_cast<std::int32_t>(parts.front()->w.cols);
    for (const Linear* part : parts) {
      const bool first = to.n == 0;
      to.n += static_cast<std::int32_t>(part->w.rows);
      add(first ? &to.w : nullptr, part->w.data, part->w.dtype, matrices_, part->w.rows * part->w.cols,
          first ? kAlignment : 1);
    }
    for (const Linear* part : parts)
      add(part == parts.front() ? &to.bias : nullptr, part->bias, DType::kFloat32, DType::kFloat32, part->w.rows,
          part == parts.front() ? kAlignment : 1);
  }

  std::size_t nbytes() const { return end_; }

  void upload(void* base, const Stream& stream) const {
    const ProfilerRange range("upload");
    Stager stager(stream);
    for (const Piece& p : pieces_) {
      void* at = static_cast<std::byte*>(base) + p.offset;
      if (p.matrix) *p.matrix = at;
      if (p.numbers) *p.numbers = static_cast<const float*>(at);
      stager.copy(p.from, p.from_type, at, p.to_type, p.count);
    }
    stream.synchronize();
  }

 private:
  struct Piece {
    const void** matrix = nullptr;    // whose pointer it becomes,
    const float** numbers = nullptr;  // or whose, or no one's
    const void* from = nullptr;
    DType from_type, to_type;
    std::size_t count = 0, offset = 0;
  };

  void add(const void** to, const void* from, DType from_type, DType to_type, std::int64_t n, std::size_t alignment) {
    push({.matrix = to, .from = from, .from_type = from_type, .to_type = to_type}, n, alignment);
  }
  void add(const float** to, const void* from, DType from_type, DType to_type, std::int64_t n, std::size_t alignment) {
    push({.numbers = to, .from = from, .from_type = from_type, .to_type = to_type}, n, alignment);
  }
  void push(Piece piece, std::int64_t n, std::size_t alignment) {
    piece.count = static_cast<std::size_t>(n);
    piece.offset = (end_ + alignment - 1) / alignment * alignment;
    end_ = piece.offset + piece.count * item_size(piece.to_type);
    pieces_.push_back(piece);
  }

  DType matrices_;
  std::vector<Piece> pieces_;
  std::size_t end_ = 0;
};

DeviceWeights::DeviceWeights(const ModelWeights& weights, const Stream& stream)
    : dtype_(all_bf16(weights) ? DType::kBFloat16 : DType::kFloat32), layers_(weights.layers.size()) {
  Plan plan(dtype_);
  place_backbone(weights, plan);
  place_fm_head(weights, plan);
  const std::size_t table = (plan.nbytes() + kAlignment - 1) / kAlignment * kAlignment;
  memory_ = DeviceMemory(table + fm_.blocks.size() * sizeof(FmBlock), "weights");
  plan.upload(memory_.data(), stream);
  auto* blocks = reinterpret_cast<FmBlock*>(static_cast<std::byte*>(memory_.data()) + table);
  stream.copy(blocks, fm_.blocks.data(), fm_.blocks.size() * sizeof(FmBlock));
  stream.synchronize();
  fm_.device_blocks = blocks;
}

void DeviceWeights::place_backbone(const ModelWeights& weights, Plan& plan) {
  const std::int64_t d = weights.config.hidden_size;
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    const LayerWeights& from = weights.layers[i];
    DeviceLayer& to = layers_[i];
    plan.vector(to.input_norm, from.input_norm, d);
    plan.stacked({{&to.q, &from.q}, {&to.k, &from.k}, {&to.v, &from.v}});
    plan.linear(to.o, from.o);
    plan.vector(to.post_attention_norm, from.post_attention_norm, d);
    plan.stacked({{&to.gate, &from.gate}, {&to.up, &from.up}});
    plan.linear(to.down, from.down);
  }
  plan.vector(norm_, weights.norm, d);
  plan.linear(image_in_, weights.image_in);
  plan.linear(image_out_, weights.image_out);
  plan.vector(gen_pos_embed_, weights.gen_pos_embed, weights.gen_pos_rows * d);
}

void DeviceWeights::place_fm_head(const ModelWeights& weights, Plan& plan) {
  const FmHeadWeights& from = weights.fm;
  const std::int64_t d = weights.config.fm_head_dim;
  plan.linear(fm_.time1, from.time1);
  plan.linear(fm_.time2, from.time2);
  plan.linear(fm_.cond, from.cond);
  plan.linear(fm_.input, from.input);
  plan.linear(fm_.output, from.output);
  std::vector<const Linear*> modulations;
  fm_.blocks.resize(from.blocks.size());
  for (std::size_t i = 0; i < from.blocks.size(); ++i) {
    const FmBlockWeights& block = from.blocks[i];
    plan.vector(fm_.blocks[i].norm_weight, block.norm_weight, d);
    plan.vector(fm_.blocks[i].norm_bias, block.norm_bias, d);
    plan.product(fm_.blocks[i].fc1, block.fc1);
    plan.product(fm_.blocks[i].fc2, block.fc2);
    modulations.push_back(&block.modulation);
  }
  modulations.push_back(&from.final_modulation);
  plan.joined(fm_.modulation, modulations);
}

}  // namespace nsrt::cuda
