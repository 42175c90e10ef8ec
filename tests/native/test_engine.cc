// The engine's contract: what it refuses, what it repeats, and that it can be stopped at any token.
#include <cmath>
#include <limits>
#include <thread>

#include "core/solver.h"
#include "nextstep_rt/engine.h"
#include "nextstep_rt/error.h"
#include "random_model.h"
#include "test_kit.h"

namespace nsrt {
namespace {

using test::random_floats;
using test::RandomModel;
using test::small_config;

Engine make_engine(const RandomModel& model) {
  return Engine(model.config(), model.tensors(), {.device = "cpu", .compute = DType::kFloat32, .threads = 2});
}

SamplingParams params(std::int64_t tokens) {
  SamplingParams p;
  p.num_tokens = tokens;
  p.num_inference_steps = 2;
  p.branches = 2;
  return p;
}

struct Request {
  std::vector<float> embeds;
  std::vector<std::uint8_t> mask;
  std::vector<std::uint64_t> seeds = {5, 6};
  std::int64_t rows = 4, width = 7;
  explicit Request(const ModelConfig& c)
      : embeds(random_floats(static_cast<std::size_t>(4 * 7 * c.hidden_size), 11)), mask(28, 1) {
    for (std::size_t pad = 0; pad < 3; ++pad) mask[2 * 7 + pad] = 0;
  }
};

std::vector<float> generate(Engine& engine, const Request& r, std::int64_t tokens, std::int64_t at_a_time) {
  const std::int64_t d = engine.config().token_dim();
  engine.prefill(r.embeds, r.mask, r.rows, r.width, tokens);
  std::vector<float> all(static_cast<std::size_t>(2 * tokens * d)), part(all.size());
  for (std::int64_t s = 0; s < tokens; s += at_a_time) {
    const std::int64_t n = std::min(at_a_time, tokens - s);
    const std::span<float> out(part.data(), static_cast<std::size_t>(2 * n * d));
    CHECK(engine.decode(params(tokens), n, {}, r.seeds, out) == n);
    for (std::int64_t i = 0; i < 2; ++i) std::copy_n(part.data() + i * n * d, n * d, all.data() + (i * tokens + s) * d);
  }
  return all;
}

TEST(tokens_at_a_time_and_repeats_do_not_change_a_bit) {
  const RandomModel model(small_config(), DType::kFloat32, 1);
  Engine engine = make_engine(model);
  const Request request(model.config());
  const auto whole = generate(engine, request, 5, 5);
  CHECK(whole == generate(engine, request, 5, 5));
  CHECK(whole == generate(engine, request, 5, 1));
  CHECK(whole == generate(engine, request, 5, 2));
}

TEST(decode_stops_where_the_callback_says_and_goes_on) {
  const RandomModel model(small_config(), DType::kFloat32, 1);
  Engine engine = make_engine(model);
  const Request request(model.config());
  const auto whole = generate(engine, request, 4, 4);
  const auto d = static_cast<std::size_t>(model.config().token_dim());
  std::vector<float> part(4 * 2 * d);
  engine.prefill(request.embeds, request.mask, 4, 7, 4);
  const auto stop_at_2 = [](std::int64_t done, std::int64_t) { return done < 2; };
  CHECK(engine.decode(params(4), 4, {}, request.seeds, part, stop_at_2) == 2);
  CHECK(engine.position() == 2);
  CHECK(std::equal(part.begin(), part.begin() + static_cast<std::ptrdiff_t>(2 * d), whole.begin()));
  const std::span<float> rest(part.data(), 2 * 2 * d);
  CHECK(engine.decode(params(4), 2, {}, request.seeds, rest) == 2);
  CHECK(std::equal(part.begin(), part.begin() + static_cast<std::ptrdiff_t>(2 * d),
                   whole.begin() + static_cast<std::ptrdiff_t>(2 * d)));
}

TEST(an_error_in_a_callback_reaches_the_caller_and_spares_the_engine) {
  const RandomModel model(small_config(), DType::kFloat32, 1);
  Engine engine = make_engine(model);
  const Request request(model.config());
  const auto whole = generate(engine, request, 3, 3);
  std::vector<float> out(whole.size());
  const auto boom = [](std::int64_t, std::int64_t) -> bool { throw Cancelled("boom"); };
  CHECK_THROWS(Cancelled, engine.prefill(request.embeds, {}, 4, 7, 3, boom), "boom");
  CHECK_THROWS(InvalidRequest, engine.decode(params(3), 1, {}, request.seeds, out), "call prefill");
  engine.prefill(request.embeds, {}, 4, 7, 3);
  CHECK_THROWS(Cancelled, engine.decode(params(3), 3, {}, request.seeds, out, boom), "boom");
  CHECK(whole == generate(engine, request, 3, 3));
}

TEST(impossible_calls_are_refused_with_their_numbers) {
  const RandomModel model(small_config(), DType::kFloat32, 1);
  Engine engine = make_engine(model);
  const Request r(model.config());
  std::vector<float> out(2 * static_cast<std::size_t>(model.config().token_dim()));
  CHECK_THROWS(InvalidRequest, engine.prefill(r.embeds, {}, 17, 1, 1), "17 rows");
  CHECK_THROWS(InvalidRequest, engine.prefill(r.embeds, {}, 4, 7, 2000), "1024 positions");
  const std::vector<std::uint8_t> none(28, 0);
  CHECK_THROWS(InvalidRequest, engine.prefill(r.embeds, none, 4, 7, 1), "row 0");
  engine.prefill(r.embeds, r.mask, 4, 7, 2);
  SamplingParams p = params(4);
  CHECK_THROWS(InvalidRequest, engine.decode(p, 3, {}, r.seeds, out), "max_new_tokens");
  CHECK_THROWS(InvalidRequest, engine.decode(p, 5, {}, r.seeds, out), "the image has 4");
  p.branches = 3;
  CHECK_THROWS(InvalidRequest, engine.decode(p, 1, {}, r.seeds, out), "3 guidance branches");
  p = params(4);
  p.guidance_scale = std::numeric_limits<double>::quiet_NaN();
  CHECK_THROWS(InvalidRequest, engine.decode(p, 1, {}, r.seeds, out), "guidance_scale");
  CHECK_THROWS(InvalidRequest, engine.embed_tokens(std::vector<std::int64_t>{1, 50}), "token id 50");
  CHECK_THROWS(InvalidRequest, engine.decode(params(4), 1, {}, {}, out), "noise or seeds");
}

TEST(values_that_stop_being_finite_name_their_token) {
  const RandomModel model(small_config(), DType::kFloat32, 1);
  Engine engine = make_engine(model);
  const Request r(model.config());
  const auto d = static_cast<std::size_t>(model.config().token_dim());
  std::vector<float> noise(3 * 3 * 2 * d, 0.5f), out(3 * 2 * d);
  noise[1 * 3 * 2 * d + d] = std::numeric_limits<float>::infinity();  // start of token 1, image 1
  engine.prefill(r.embeds, r.mask, 4, 7, 3);
  CHECK_THROWS(Error, engine.decode(params(3), 3, noise, {}, out), "image token 1 of image 1");
}

TEST(a_broken_token_ends_the_run_and_spares_the_engine) {
  const RandomModel model(small_config(), DType::kFloat32, 1);
  Engine engine = make_engine(model);
  const Request r(model.config());
  const auto whole = generate(engine, r, 2, 2);
  const auto d = static_cast<std::size_t>(model.config().token_dim());
  std::vector<float> noise(2 * 3 * 2 * d, 0.5f), out(2 * 2 * d);
  noise[3 * 2 * d] = std::numeric_limits<float>::infinity();
  engine.prefill(r.embeds, r.mask, 4, 7, 2);
  CHECK_THROWS(Error, engine.decode(params(2), 2, noise, {}, out), "image token 1 of image 0");
  CHECK_THROWS(InvalidRequest, engine.decode(params(2), 1, noise, {}, out), "call prefill");
  CHECK(whole == generate(engine, r, 2, 2));
}

TEST(absurd_counts_do_not_overflow) {
  const RandomModel model(small_config(), DType::kFloat32, 1);
  Engine engine = make_engine(model);
  const Request r(model.config());
  constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max();
  std::vector<float> out(2 * static_cast<std::size_t>(model.config().token_dim()));
  CHECK_THROWS(InvalidRequest, engine.prefill(r.embeds, r.mask, 4, 7, kMost), "exceeds the model's 1024");
  CHECK_THROWS(InvalidRequest, engine.prefill(r.embeds, r.mask, 4, kMost, 1), "columns");
  engine.prefill(r.embeds, r.mask, 4, 7, 3);
  CHECK(engine.decode(params(3), 1, {}, r.seeds, out) == 1);
  CHECK_THROWS(InvalidRequest, engine.decode(params(3), kMost, {}, r.seeds, out), "the image has 3");
}

TEST(sizes_are_checked_against_the_call) {
  const RandomModel model(small_config(), DType::kFloat32, 1);
  Engine engine = make_engine(model);
  const Request r(model.config());
  std::vector<float> out(2 * static_cast<std::size_t>(model.config().token_dim()));
  CHECK_THROWS(InvalidRequest, engine.prefill(r.embeds, r.mask, 5, 7, 1), "embeds has");
  engine.prefill(r.embeds, r.mask, 4, 7, 3);
  const std::vector<std::uint64_t> three = {1, 2, 3};
  CHECK_THROWS(InvalidRequest, engine.decode(params(3), 1, {}, three, out), "seeds has 3 elements; the call needs 2");
  CHECK_THROWS(InvalidRequest, engine.decode(params(3), 2, {}, r.seeds, out), "out has");
  CHECK_THROWS(InvalidRequest, engine.decode(params(3), 1, out, {}, out), "noise has");
}

TEST(branches_cannot_change_within_an_image) {
  const RandomModel model(small_config(), DType::kFloat32, 1);
  Engine engine = make_engine(model);
  const Request r(model.config());
  std::vector<float> out(2 * static_cast<std::size_t>(model.config().token_dim()));
  engine.prefill(r.embeds, r.mask, 4, 7, 3);
  CHECK(engine.decode(params(3), 1, {}, r.seeds, out) == 1);
  SamplingParams p = params(3);
  p.branches = 1;
  const std::vector<std::uint64_t> four = {1, 2, 3, 4};
  CHECK_THROWS(InvalidRequest, engine.decode(p, 1, {}, four, out), "branches and num_tokens cannot change");
  p = params(3);
  p.guidance_scale = 2.0;
  CHECK(engine.decode(p, 1, {}, r.seeds, out) == 1);
}

TEST(a_moved_from_engine_says_so) {
  const RandomModel model(small_config(), DType::kFloat32, 1);
  const Request r(model.config());
  Engine first = make_engine(model);
  const auto whole = generate(first, r, 2, 2);
  Engine second = std::move(first);
  CHECK(whole == generate(second, r, 2, 2));
  CHECK_THROWS(Error, first.rows(), "moved from");
  first = std::move(second);
  CHECK(whole == generate(first, r, 2, 2));
}

TEST(a_second_thread_hears_that_the_engine_is_busy) {
  const RandomModel model(small_config(), DType::kFloat32, 1);
  Engine engine = make_engine(model);
  const Request r(model.config());
  std::vector<float> out(2 * static_cast<std::size_t>(model.config().token_dim()));
  engine.prefill(r.embeds, r.mask, 4, 7, 1);
  bool refused = false;
  engine.decode(params(1), 1, {}, r.seeds, out, [&](std::int64_t, std::int64_t) {
    std::thread([&] {
      try {
        engine.reset();
      } catch (const Error&) {
        refused = true;
      }
    }).join();
    return true;
  });
  CHECK(refused);
}

TEST(gen_pos_embed_is_used_and_bounds_the_image) {
  ModelConfig config = small_config();
  const RandomModel plain(config, DType::kFloat32, 1);
  config.use_gen_pos_embed = true;
  const RandomModel with(config, DType::kFloat32, 1);
  Engine a = make_engine(plain), b = make_engine(with);
  const Request r(config);
  CHECK(generate(a, r, 2, 2) != generate(b, r, 2, 2));
  b.prefill(r.embeds, {}, 4, 7, 100);
  std::vector<float> out(2 * static_cast<std::size_t>(config.token_dim()));
  CHECK_THROWS(InvalidRequest, b.decode(params(65), 1, {}, r.seeds, out), "gen_pos_embed has 64");
}

TEST(memory_is_planned_before_it_is_held) {
  const RandomModel model(small_config(), DType::kFloat32, 1);
  Engine engine = make_engine(model);
  const MemoryUse plan = engine.plan(4, 12, 2);
  CHECK(plan.kv_cache == 2u * 2 * 4 * 2 * 12 * 40 * 4);  // k and v, layers, rows, kv heads, positions, d_head, bytes
  const Request r(model.config());
  generate(engine, r, 5, 5);
  const MemoryUse held = engine.memory();
  CHECK(held.kv_cache == plan.kv_cache);
  CHECK(held.scratch <= plan.scratch + 4096);
  CHECK(plan.scratch <= held.scratch + 4096);
}

TEST(noise_is_a_pure_function_with_normal_moments) {
  std::vector<float> a(100000), b(7), c(a.size());
  normal_noise(42, 3, 1, 100000, a.data());
  normal_noise(42, 3, 1, 7, b.data());
  CHECK(std::equal(b.begin(), b.end(), a.begin()));
  double mean = 0, square = 0, cross = 0;
  normal_noise(43, 3, 1, 100000, c.data());
  for (std::size_t i = 0; i < a.size(); ++i) {
    mean += static_cast<double>(a[i]) / 1e5;
    square += static_cast<double>(a[i]) * static_cast<double>(a[i]) / 1e5;
    cross += static_cast<double>(a[i]) * static_cast<double>(c[i]) / 1e5;
  }
  CHECK(std::fabs(mean) < 0.015);  // 4.7 standard errors
  CHECK(std::fabs(square - 1) < 0.02);
  CHECK(std::fabs(cross) < 0.015);
}

}  // namespace
}  // namespace nsrt
