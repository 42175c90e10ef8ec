// Every kernel of every ISA level this machine has, but the product (test_matmul.cc), against double precision, at
// sizes around the vector widths. The arrays end where their memory ends, so that a sanitizer sees any access past
// them.
#include <cmath>

#include "core/bf16.h"
#include "cpu/ops.h"
#include "kernel_tests.h"
#include "random_model.h"
#include "test_kit.h"

namespace nsrt::cpu {
namespace {

using test::close;
using test::for_each_level;
using test::kSizes;
using test::random_floats;
using test::to_bf16;

TEST(roofs_read_and_copy_every_number) {
  for_each_level([](const KernelTable& table) {
    const RoofTable& roofs = table.roofs;
    for (const std::int64_t units : {1, 2, 63, 64, 65, 130}) {
      const std::int64_t n = units * kRoofUnit;
      std::vector<float> x(static_cast<std::size_t>(n)), y(x.size());
      for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i % 11 + 1);  // so that each one counts
      double sum = 0;
      for (const float v : x) sum += static_cast<double>(v);
      CHECK(static_cast<double>(roofs.read_in_order(x.data(), n)) == sum);
      CHECK(static_cast<double>(roofs.read_in_streams(x.data(), n)) == sum);
      roofs.copy(x.data(), n, y.data());
      CHECK(x == y);
    }
    // 1, 2, 4, ... in every chain: as many rounds as were asked for.
    CHECK(roofs.multiply_floats(3, 2.0f, 1.0f) == static_cast<float>(7 * roofs.chains * roofs.lanes));
    CHECK((roofs.multiply_pairs != nullptr) == table.has_dot);
    if (roofs.multiply_pairs)
      CHECK(roofs.multiply_pairs(3, 2.0f, 1.0f) == static_cast<float>(12 * roofs.pair_chains * roofs.lanes));
  });
}

TEST(norms_of_every_length) {
  for_each_level([](const KernelTable& table) {
    for (const std::int64_t n : kSizes) {
      const auto size = static_cast<std::size_t>(n);
      const auto x = random_floats(size, 1), w = random_floats(size, 2), b = random_floats(size, 3),
                 shift = random_floats(size, 4), scale = random_floats(size, 5);
      double mean = 0, squares = 0, variance = 0;
      for (const float v : x) mean += static_cast<double>(v) / static_cast<double>(n);
      for (const float v : x) squares += static_cast<double>(v) * static_cast<double>(v) / static_cast<double>(n);
      for (const float v : x) variance += std::pow(static_cast<double>(v) - mean, 2) / static_cast<double>(n);
      std::vector<float> rms(size), ln(size), full(size);
      table.rms_norm(x.data(), w.data(), n, 1e-3f, rms.data());
      table.layer_norm(x.data(), nullptr, nullptr, nullptr, nullptr, n, 1e-3f, ln.data());
      table.layer_norm(x.data(), w.data(), b.data(), shift.data(), scale.data(), n, 1e-3f, full.data());
      for (std::size_t i = 0; i < size; ++i) {
        const double xi = static_cast<double>(x[i]), wi = static_cast<double>(w[i]), bi = static_cast<double>(b[i]);
        const double si = static_cast<double>(scale[i]), hi = static_cast<double>(shift[i]);
        const double normal = (xi - mean) / std::sqrt(variance + 1e-3);
        CHECK(close(static_cast<double>(rms[i]), xi / std::sqrt(squares + 1e-3) * wi, 4, 40));
        CHECK(close(static_cast<double>(ln[i]), normal, 40, 40));
        CHECK(close(static_cast<double>(full[i]), (normal * wi + bi) * (1 + si) + hi, 200, 40));
      }
    }
  });
}

TEST(elementwise_ops_of_every_length) {
  for_each_level([](const KernelTable& table) {
    for (const std::int64_t n : kSizes) {
      const auto size = static_cast<std::size_t>(n);
      const auto a = random_floats(size, 1, 20.0f), b = random_floats(size, 2), c = random_floats(size, 3);
      std::vector<float> mul(size), add(size), act(size), upd(size), gated = c;
      table.silu_mul(a.data(), b.data(), b.data(), nullptr, n, mul.data());
      table.silu_add(a.data(), b.data(), n, add.data());
      table.epilogue(a.data(), b.data(), c.data(), true, n, act.data());
      table.update(a.data(), b.data(), c.data(), 0.5f, 2.0f, 3.0f, n, upd.data());
      table.gated_residual(a.data(), b.data(), b.data(), n, gated.data());
      for (std::size_t i = 0; i < size; ++i) {
        const double x = static_cast<double>(a[i]), y = static_cast<double>(b[i]), z = static_cast<double>(c[i]);
        const double sum = static_cast<double>(a[i] + b[i]), silu = sum / (1 + std::exp(-sum));
        const double scale = std::fabs(sum) + 4;
        CHECK(close(static_cast<double>(mul[i]), silu * y, scale * 4, 16));
        CHECK(close(static_cast<double>(add[i]), silu, scale, 16));
        CHECK(close(static_cast<double>(act[i]), silu + z, scale, 16));
        CHECK(close(static_cast<double>(upd[i]), 0.5 * x + 2 * y + 3 * z, 0.5 * std::fabs(x) + 30, 8));
        CHECK(close(static_cast<double>(gated[i]), z + y * sum, scale * 5, 8));
      }
    }
  });
}

TEST(bf16_conversion_rounds_to_nearest_even_and_keeps_nan) {
  for_each_level([](const KernelTable& table) {
    std::vector<float> x = {0.0f,
                            -0.0f,
                            1.0f,
                            1.00390625f,
                            1.01171875f,
                            3.3895314e38f,
                            INFINITY,
                            -INFINITY,
                            NAN,
                            std::bit_cast<float>(0x7f800001u),
                            std::bit_cast<float>(0xffffffffu)};
    const auto more = random_floats(37, 9, 1e3f);
    x.insert(x.end(), more.begin(), more.end());
    std::vector<std::uint16_t> y(x.size());
    table.to_bf16(x.data(), static_cast<std::int64_t>(x.size()), y.data());
    for (std::size_t i = 0; i < x.size(); ++i) {
      if (std::isnan(x[i]))
        CHECK(std::isnan(bf16_to_float(y[i])));
      else
        CHECK(y[i] == float_to_bf16(x[i]));
    }
  });
}

void check_attention(const KernelTable& table, std::int64_t d, std::int64_t h_q, std::int64_t h_kv, std::int64_t length,
                     bool half) {
  const std::int64_t capacity = length + 2;
  const auto q = random_floats(static_cast<std::size_t>(h_q * d), 1);
  const auto k = random_floats(static_cast<std::size_t>(h_kv * capacity * d), 2),
             v = random_floats(static_cast<std::size_t>(h_kv * capacity * d), 3);
  const auto kb = to_bf16(k), vb = to_bf16(v);
  std::vector<float> y(q.size());
  Pool pool(1);
  attention(table,
            {.q = q.data(),
             .k = half ? static_cast<const void*>(kb.data()) : k.data(),
             .v = half ? static_cast<const void*>(vb.data()) : v.data(),
             .kv_dtype = half ? DType::kBFloat16 : DType::kFloat32,
             .lengths = &length,
             .y = y.data(),
             .b = 1,
             .h_q = h_q,
             .h_kv = h_kv,
             .d_head = d,
             .capacity = capacity},
            pool);
  bool good = true;
  for (std::int64_t h = 0; h < h_q; ++h) {
    const auto at = [&](const std::vector<float>& f, const std::vector<std::uint16_t>& b, std::int64_t s,
                        std::int64_t c) {
      const auto i = static_cast<std::size_t>((h / (h_q / h_kv) * capacity + s) * d + c);
      return static_cast<double>(half ? bf16_to_float(b[i]) : f[i]);
    };
    std::vector<double> out(static_cast<std::size_t>(d), 0.0);
    double total = 0;
    for (std::int64_t s = 0; s < length; ++s) {
      double score = 0;
      for (std::int64_t c = 0; c < d; ++c)
        score += static_cast<double>(q[static_cast<std::size_t>(h * d + c)]) * at(k, kb, s, c);
      const double p = std::exp(score / std::sqrt(static_cast<double>(d)));
      total += p;
      for (std::int64_t c = 0; c < d; ++c) out[static_cast<std::size_t>(c)] += p * at(v, vb, s, c);
    }
    for (std::int64_t c = 0; c < d; ++c)
      good &= close(static_cast<double>(y[static_cast<std::size_t>(h * d + c)]),
                    out[static_cast<std::size_t>(c)] / total, 4, 64 + static_cast<double>(length) / 4);
  }
  CHECK(good);
}

TEST(attention_around_block_edges_and_odd_heads) {
  for_each_level([](const KernelTable& table) {
    for (const std::int64_t length : {1, 2, 3, 4, 5, 31, 33, 255, 256, 257, 513, 600})
      for (const bool half : {false, true}) {
        check_attention(table, 64, 4, 2, length, half);
        check_attention(table, 40, 5, 1, length, half);
        check_attention(table, 136, 2, 2, length, half);
      }
  });
}

TEST(rope_keeps_lengths_and_turns_by_the_position) {
  for_each_level([](const KernelTable& table) {
    for (const std::int64_t d : {2, 8, 32, 40, 64, 256}) {
      const auto x = random_floats(static_cast<std::size_t>(d), 1);
      const std::int64_t position = 1000;
      std::vector<float> y(x.size());
      rope(table, {x.data(), &position, y.data(), 1, 1, d, 10000.0});
      for (std::int64_t i = 0; i < d / 2; ++i) {
        const auto lo = static_cast<std::size_t>(i), hi = static_cast<std::size_t>(i + d / 2);
        const double angle = 1000.0 * std::pow(10000.0, -2.0 * static_cast<double>(i) / static_cast<double>(d));
        const double a = static_cast<double>(x[lo]), b = static_cast<double>(x[hi]);
        CHECK(close(static_cast<double>(y[lo]), a * std::cos(angle) - b * std::sin(angle), 8, 8));
        CHECK(close(static_cast<double>(y[hi]), b * std::cos(angle) + a * std::sin(angle), 8, 8));
      }
    }
  });
}

}  // namespace
}  // namespace nsrt::cpu
