// Backends: fused against composed stages, and what must not change a single bit.
#if defined(__SSE__)
#include <xmmintrin.h>
#endif

#include <atomic>
#include <cstring>

#include "backend/backend.h"
#include "core/weights.h"
#include "cpu/pool.h"
#include "nextstep_rt/error.h"
#include "random_model.h"
#include "test_kit.h"

namespace nsrt {
namespace {

using test::random_floats;
using test::RandomModel;
using test::small_config;

struct Run {
  std::vector<std::int64_t> lengths;  // of the rows' prompts
  std::int64_t images = 1, branches = 1, tokens = 3;
  Solver solver = Solver::kSde;
  bool composed = false;
  int threads = 2;
  std::string device = "cpu";
  DType compute = DType::kFloat32;
  unsigned seed = 7;
};

SamplingParams params_of(const Run& run) {
  SamplingParams p;
  p.num_tokens = run.tokens;
  p.num_inference_steps = 3;
  p.branches = run.branches;
  p.solver = run.solver;
  p.guidance_renorm = run.branches == 2;
  return p;
}

// Row r's embeddings depend on its index only, so that runs with other batches can be compared.
std::vector<float> generate(const RandomModel& model, const Run& run) {
  const ModelWeights weights = bind_weights(model.config(), model.tensors(), run.compute);
  const auto backend = make_backend(weights, run.device, run.compute, run.threads);
  const std::int64_t d = model.config().hidden_size, d_tok = model.config().token_dim();
  const SamplingParams p = params_of(run);
  std::int64_t longest = 0;
  for (const std::int64_t n : run.lengths) longest = std::max(longest, n);
  backend->reserve({static_cast<std::int64_t>(run.lengths.size()), longest + run.tokens, 0});
  backend->set_plan({make_solver_plan(p), run.branches, run.images, p.guidance_renorm, p.normalize_tokens});
  for (std::size_t r = 0; r < run.lengths.size(); ++r) {
    const std::int64_t n = run.lengths[r];
    const auto embeds = random_floats(static_cast<std::size_t>(n * d), static_cast<unsigned>(r));
    for (std::int64_t at = 0; at < n; at += backend->max_chunk()) {
      std::vector<RowRef> rows;
      for (std::int64_t i = at; i < std::min(n, at + backend->max_chunk()); ++i)
        rows.push_back({static_cast<std::int64_t>(r), i, i + 1 == n});
      backend->forward(rows, embeds.data() + at * d);
    }
  }
  std::vector<float> out, token(static_cast<std::size_t>(run.images * d_tok));
  for (std::int64_t s = 0; s < run.tokens; ++s) {
    const auto noise =
        random_floats(static_cast<std::size_t>(4 * run.images * d_tok), run.seed + static_cast<unsigned>(s));
    std::vector<RowRef> rows;
    for (std::size_t r = 0; r < run.lengths.size(); ++r)
      rows.push_back({static_cast<std::int64_t>(r), run.lengths[r] + s - 1, true});
    const TokenArgs args{s, rows, 3.0f, 2.0f, noise.data(), token.data()};
    if (run.composed)
      backend->compose_token(args);
    else
      backend->decode_token(args);
    out.insert(out.end(), token.begin(), token.end());
  }
  return out;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

void check_fused_tokens(const ModelConfig& config, const std::string& device) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    const RandomModel model(config, dtype, 1);
    for (const Solver solver :
         {Solver::kEuler, Solver::kHeun, Solver::kSde, Solver::kSdeFinalOde, Solver::kFlowSde, Solver::kFlowCps}) {
      for (std::int64_t branches = 1; branches <= 3; ++branches) {
        Run run{.lengths = std::vector<std::int64_t>(static_cast<std::size_t>(2 * branches), 5), .images = 2};
        run.branches = branches;
        run.solver = solver;
        run.compute = dtype;
        run.device = device;
        const auto fused = generate(model, run);
        run.composed = true;
        CHECK(same_bits(fused, generate(model, run)));
        for (const float x : fused) CHECK(std::isfinite(x));
      }
    }
  }
}

TEST(a_fused_token_equals_its_stages) { check_fused_tokens(small_config(), "cpu"); }

TEST(a_recorded_token_equals_its_stages) {
  if (cuda_devices().empty()) return;
  ModelConfig config = small_config();  // with widths that a GPU's kernels read
  config.intermediate_size = 104;
  config.latent_channels = 6;
  config.fm_head_dim = 56;
  config.fm_head_mlp_ratio = 10.0 / 7.0;
  check_fused_tokens(config, "cuda");
}

TEST(threads_do_not_change_a_bit) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    const RandomModel model(small_config(), dtype, 2);
    Run run{.lengths = {300, 5, 70, 1}, .images = 2, .branches = 2};
    run.compute = dtype;
    run.threads = 1;
    const auto one = generate(model, run);
    for (const int threads : {2, 3, 5}) {
      run.threads = threads;
      CHECK(same_bits(one, generate(model, run)));
    }
  }
}

TEST(a_row_does_not_depend_on_its_neighbours) {
  const RandomModel model(small_config(), DType::kBFloat16, 3);
  Run alone{.lengths = {270}, .images = 1, .branches = 1};
  alone.compute = DType::kBFloat16;
  Run among = alone;
  among.lengths = {270, 3, 65, 64, 1};
  among.images = 5;
  // Both runs draw image 0's start and step noise from the head of differently sized arrays: only euler, whose steps
  // need none, has the same noise in both, and its start noise is the array's head.
  alone.solver = among.solver = Solver::kEuler;
  const auto one = generate(model, alone), five = generate(model, among);
  const auto d = static_cast<std::size_t>(model.config().token_dim());
  for (std::size_t s = 0; s < 3; ++s)
    CHECK(std::memcmp(one.data() + s * d, five.data() + s * 5 * d, d * sizeof(float)) == 0);
}

TEST(the_callers_float_modes_do_not_reach_the_numbers) {
#if defined(__SSE__)
  const RandomModel model(small_config(), DType::kFloat32, 6);
  const ModelWeights weights = bind_weights(model.config(), model.tensors(), DType::kFloat32);
  const auto one = make_cpu_backend(weights, DType::kFloat32, 1), two = make_cpu_backend(weights, DType::kFloat32, 2);
  const auto d = static_cast<std::size_t>(model.config().hidden_size);
  const std::vector<float> tokens(static_cast<std::size_t>(model.config().token_dim()), 1e-39f);
  std::vector<float> a(d), b(d), c(d);
  one->project_tokens(tokens.data(), 1, a.data());
  const unsigned before = _mm_getcsr();
  _mm_setcsr(before | 0x8040);  // flush to zero, denormals are zero
  one->project_tokens(tokens.data(), 1, b.data());
  two->project_tokens(tokens.data(), 1, c.data());
  CHECK(_mm_getcsr() == (before | 0x8040));
  _mm_setcsr(before);
  CHECK(same_bits(a, b));
  CHECK(same_bits(a, c));
#endif
}

TEST(a_task_that_throws_reaches_the_caller) {
  cpu::Pool pool(3);
  for (int thrower = 0; thrower < 3; ++thrower) {
    CHECK_THROWS(Error, pool.run([&](cpu::Team& team) {
      if (team.id() == thrower) throw Error("thrown");
    }),
                 "thrown");
  }
  std::atomic<int> ran = 0;
  pool.run([&](cpu::Team&) { ++ran; });
  CHECK(ran == 3);
}

TEST(a_bad_thread_count_is_refused) {
  const RandomModel model(small_config(), DType::kFloat32, 4);
  const ModelWeights weights = bind_weights(model.config(), model.tensors(), DType::kFloat32);
  CHECK_THROWS(InvalidRequest, make_cpu_backend(weights, DType::kFloat32, -1), "threads is -1");
  CHECK_THROWS(InvalidRequest, make_cpu_backend(weights, DType::kFloat32, 5000), "threads is 5000");
  if (cuda_devices().empty()) CHECK_THROWS(Error, make_cuda_backend(weights, DType::kFloat32, 0), "use device 'cpu'");
  CHECK_THROWS(InvalidRequest, make_backend(weights, "tpu", DType::kFloat32, 1), "unknown device 'tpu'");
  CHECK_THROWS(InvalidRequest, make_backend(weights, "cuda:x", DType::kFloat32, 1), "unknown device 'cuda:x'");
}

}  // namespace
}  // namespace nsrt
