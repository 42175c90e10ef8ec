// What prefill does between products, against the same in double: rows of more and of fewer pieces than a block has
// threads, heads that are no power of two, every bias present and absent.
#include "cuda/ops/prefill/prefill.h"
#include "cuda/ops/rows/rows.h"
#include "numbers.h"

using namespace nsrt;
using namespace nsrt::cuda;
using kit::count;
using kit::Numbers;
using kit::Output;

namespace {

constexpr DType kHalf = DType::kBFloat16, kFull = DType::kFloat32;
constexpr float kEps = 1e-3f;

std::size_t at(int i) { return static_cast<std::size_t>(i); }

double rms(const Numbers& x, int row, int d) {
  double squares = 0;
  for (int i = 0; i < d; ++i) squares += x[count(row, d) + at(i)] * x[count(row, d) + at(i)];
  return std::sqrt(squares / d + static_cast<double>(kEps));
}

void test_norms(std::mt19937& random, int rows, int d) {
  const Numbers residual(random, count(rows, d), kFull), weight(random, count(d, 1), kFull);
  Output x(count(rows, d), kHalf), hidden(count(rows, d), kFull);
  norm_rows(
      {.residual = residual.floats(), .weight = weight.floats(), .x = x.device(), .rows = rows, .d = d, .eps = kEps},
      {});
  // All rows but the first are kept, in the order of the others from the end.
  std::vector<std::int32_t> keep;
  std::vector<double> wanted, kept(count(rows, d), std::nan(""));
  for (int r = 0; r < rows; ++r) {
    keep.push_back(r == 0 ? -1 : rows - 1 - r);
    for (int i = 0; i < d; ++i) {
      wanted.push_back(residual[count(r, d) + at(i)] / rms(residual, r, d) * weight[at(i)]);
      if (r > 0) kept[count(rows - 1 - r, d) + at(i)] = wanted.back();
    }
  }
  const std::string name = std::to_string(rows) + " rows of " + std::to_string(d);
  kit::expect_close(x.values(), wanted, kit::tolerance(kHalf, at(d)), "norms of " + name);

  const kit::Array<std::int32_t> sequences(keep);
  take_hidden({.residual = residual.floats(),
               .norm = {.width = d, .eps = kEps},
               .weight = weight.floats(),
               .keep = sequences.get(),
               .hidden = hidden.floats(),
               .rows = rows,
               .d = d},
              {});
  std::vector<double> got = hidden.values();
  got.resize(count(rows - 1, d));
  kept.resize(got.size());
  kit::expect_close(got, kept, kit::tolerance(kFull, at(d)), "hidden states of " + name);
}

void test_gate(std::mt19937& random, int rows, int d, bool biased) {
  const Numbers both(random, count(rows, 2, d), kHalf);
  const Numbers gate_bias(random, count(d, 1), kFull), up_bias(random, count(d, 1), kFull);
  Output y(count(rows, d), kHalf);
  gate_rows({.gate_up = both.device(),
             .gate_bias = biased ? gate_bias.floats() : nullptr,
             .up_bias = biased ? up_bias.floats() : nullptr,
             .y = y.device(),
             .rows = rows,
             .d = d},
            {});
  std::vector<double> wanted;
  for (int r = 0; r < rows; ++r)
    for (int i = 0; i < d; ++i) {
      const std::size_t gate = count(2 * r, d) + at(i);
      wanted.push_back(kit::silu(both[gate] + (biased ? gate_bias[at(i)] : 0)) *
                       (both[gate + at(d)] + (biased ? up_bias[at(i)] : 0)));
    }
  kit::expect_close(y.values(), wanted, kit::tolerance(kHalf, 1), "gate of " + std::to_string(d));
}

struct Heads {
  int h_q, h_kv, d;
  bool biased;
};

// Rows of two sequences, each at a position of its own.
void test_append(std::mt19937& random, const Heads& h, int rows) {
  const int all = h.h_q + 2 * h.h_kv, half = h.d / 2, positions = rows / 2 + 1;
  const Numbers qkv(random, count(rows, all, h.d), kHalf), bias(random, count(all, h.d), kFull);
  const Numbers cos(random, count(positions, half), kFull), sin(random, count(positions, half), kFull);
  std::vector<RowPlace> places;
  for (int r = 0; r < rows; ++r) places.push_back({r % 2, positions - 1 - r / 2});
  const kit::Array<RowPlace> where(places);
  const std::size_t cached = count(2 * h.h_kv, positions, h.d);
  Output q(count(rows, h.h_q, h.d), kHalf), keys(cached, kHalf), values(cached, kHalf);
  const auto biases = [&](int head) { return h.biased ? bias.floats() + count(head, h.d) : nullptr; };
  append_rows({.qkv = qkv.device(),
               .q_bias = biases(0),
               .k_bias = biases(h.h_q),
               .v_bias = biases(h.h_q + h.h_kv),
               .q = q.device(),
               .k_cache = keys.device(),
               .v_cache = values.device(),
               .cos = cos.floats(),
               .sin = sin.floats(),
               .places = where.get(),
               .rows = rows,
               .h_q = h.h_q,
               .h_kv = h.h_kv,
               .d_head = h.d,
               .capacity = positions},
              {});
  std::vector<double> wanted_q, wanted_k, wanted_v, got_k, got_v;
  const std::vector<double> all_keys = keys.values(), all_values = values.values();
  for (int r = 0; r < rows; ++r) {
    const auto biased = [&](int head, int i) {
      return qkv[count(r * all + head, h.d) + at(i)] + (h.biased ? bias[count(head, h.d) + at(i)] : 0);
    };
    const RowPlace place = places[at(r)];
    for (int head = 0; head < all; ++head) {
      for (int i = 0; i < h.d; ++i) {
        const double low = biased(head, i % half), high = biased(head, i % half + half);
        const std::size_t angle = count(place.position, half) + at(i % half);
        const double turned = i < half ? low * cos[angle] - high * sin[angle] : high * cos[angle] + low * sin[angle];
        const auto in_cache = [&](int kv) {
          return count((place.sequence * h.h_kv + kv) * positions + place.position, h.d) + at(i);
        };
        if (head < h.h_q) {
          wanted_q.push_back(turned / std::sqrt(h.d));
        } else if (head < h.h_q + h.h_kv) {
          wanted_k.push_back(turned);
          got_k.push_back(all_keys[in_cache(head - h.h_q)]);
        } else {
          wanted_v.push_back(biased(head, i));
          got_v.push_back(all_values[in_cache(head - h.h_q - h.h_kv)]);
        }
      }
    }
  }
  const std::string name = " of " + std::to_string(all) + " heads of " + std::to_string(h.d);
  kit::expect_close(q.values(), wanted_q, kit::tolerance(kHalf, 2), "q" + name);
  kit::expect_close(got_k, wanted_k, kit::tolerance(kHalf, 2), "k" + name);
  kit::expect_close(got_v, wanted_v, kit::tolerance(kHalf, 2), "v" + name);
}

}  // namespace

int main() {
  return kit::under_seeds([](std::mt19937& random) {
    test_norms(random, 3, 8);
    test_norms(random, 2, 2056);  // more pieces than threads
    test_gate(random, 2, 2056, false);
    test_gate(random, 5, 24, true);
    test_append(random, {.h_q = 5, .h_kv = 1, .d = 128, .biased = true}, 7);
    test_append(random, {.h_q = 4, .h_kv = 2, .d = 40, .biased = false}, 3);
    test_append(random, {.h_q = 1, .h_kv = 1, .d = 8, .biased = true}, 1);
  });
}
