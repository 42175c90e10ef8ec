// A stranger's program: opens a checkpoint with the installed headers, generates an image's tokens from a prompt's ids,
// and compares them with the golden result. usage: consumer GOLDEN_FOLDER
#include <cmath>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "nextstep_rt/checkpoint.h"
#include "nextstep_rt/engine.h"
#include "nextstep_rt/error.h"

namespace {

// One float32 tensor of a golden file (the safetensors format: length, JSON header, data).
std::vector<float> golden(const std::string& path, const std::string& name) {
  std::ifstream file(path, std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(file), {}};
  std::uint64_t length = 0;
  if (bytes.size() < 8) throw nsrt::Error("cannot read " + path);
  std::memcpy(&length, bytes.data(), 8);
  const std::size_t entry = bytes.find("\"" + name + "\""), at = bytes.find("\"data_offsets\":[", entry) + 16;
  unsigned long begin = 0, end = 0;
  if (std::sscanf(bytes.c_str() + at, "%lu,%lu", &begin, &end) != 2) throw nsrt::Error("no tensor " + name);
  std::vector<float> out((end - begin) / sizeof(float));
  std::memcpy(out.data(), bytes.data() + 8 + length + begin, end - begin);
  return out;
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc != 2) throw nsrt::Error("usage: consumer GOLDEN_FOLDER");
  const std::string folder = argv[1];
  const nsrt::Checkpoint checkpoint(folder + "/model");
  nsrt::Engine engine(checkpoint.config(), checkpoint.tensors(), {.device = "cpu", .compute = nsrt::DType::kFloat32});

  // <|im_start|> "a red circle" <|image_area|> 3*3 <|begin_of_image|>
  const std::vector<std::int64_t> ids = {385, 64, 343, 67, 375, 68, 387, 18, 9, 18, 388};
  const std::vector<float> embeds = engine.embed_tokens(ids);
  engine.prefill(embeds, {}, 1, static_cast<std::int64_t>(ids.size()), 9);

  nsrt::SamplingParams params;
  params.num_tokens = 9;
  params.num_inference_steps = 4;
  params.guidance_scale = 1.0;
  params.solver = nsrt::Solver::kEuler;
  const std::vector<float> noise = golden(folder + "/plain.safetensors", "noise");
  const std::vector<float> want = golden(folder + "/plain.safetensors", "tokens");
  std::vector<float> tokens(want.size());
  engine.decode(params, params.num_tokens, noise, {}, tokens, [](auto done, auto total) {
    std::printf("token %ld of %ld\n", static_cast<long>(done), static_cast<long>(total));
    return true;
  });

  double error = 0, norm = 0;
  for (std::size_t i = 0; i < want.size(); ++i) {
    error += std::pow(static_cast<double>(tokens[i]) - want[i], 2);
    norm += std::pow(static_cast<double>(want[i]), 2);
  }
  std::printf("%s: relative error %.2e\n", engine.backend().c_str(), std::sqrt(error / norm));
  return std::sqrt(error / norm) < 1e-5 ? 0 : 1;
} catch (const nsrt::Error& e) {
  std::fprintf(stderr, "error: %s\n", e.what());
  return 2;
}
