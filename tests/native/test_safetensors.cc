#include <sys/stat.h>

#include <cstdint>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "checkpoint_files.h"
#include "core/finite.h"
#include "core/safetensors.h"
#include "nextstep_rt/error.h"
#include "test_kit.h"

using nsrt::CheckpointError;
using nsrt::DType;
using nsrt::SafetensorsFile;
using nsrt::test::safetensors;
using nsrt::test::SafetensorsWriter;
using nsrt::test::TempDir;

namespace {

SafetensorsFile open_bytes(const TempDir& dir, const std::string& bytes) {
  return SafetensorsFile(dir.write("x.safetensors", bytes));
}

std::string entry(const std::string& name, const std::string& dtype, const std::string& shape,
                  const std::string& offsets) {
  return nsrt::str("\"", name, R"(":{"dtype":")", dtype, R"(","shape":)", shape, R"(,"data_offsets":)", offsets, "}");
}

}  // namespace

TEST(reads_both_dtypes_and_ignores_metadata) {
  const TempDir dir;
  const std::string header = nsrt::str(R"({"__metadata__":{"format":"pt"},)", entry("b", "F32", "[]", "[6,10]"), ",",
                                       entry("a", "BF16", "[3,1]", "[0,6]"), "}  ");
  const SafetensorsFile file = open_bytes(dir, safetensors(header, "abcdefghij"));
  CHECK(file.tensors().size() == 2);
  CHECK(file.tensors().at("a").dtype == DType::kBFloat16);
  CHECK(file.tensors().at("a").shape == std::vector<std::int64_t>({3, 1}));
  CHECK(std::memcmp(file.tensors().at("a").data, "abcdef", 6) == 0);
  CHECK(file.tensors().at("b").shape.empty() && file.tensors().at("b").numel() == 1);
  CHECK(std::memcmp(file.tensors().at("b").data, "ghij", 4) == 0);
}

TEST(misaligned_tensors_are_copied_and_survive_a_move) {
  const TempDir dir;
  SafetensorsWriter writer;
  writer.add("a", "BF16", {5}, 2);
  writer.add("b", "F32", {3}, 4);
  for (std::size_t shift = 0; shift < 8; ++shift) {
    SafetensorsFile first = open_bytes(dir, writer.bytes(8, shift));
    const SafetensorsFile file = std::move(first);
    for (const auto& [name, view] : file.tensors()) {
      CHECK(reinterpret_cast<std::uintptr_t>(view.data) % nsrt::item_size(view.dtype) == 0);
      CHECK(std::string(static_cast<const char*>(view.data), view.nbytes()) == std::string(view.nbytes(), '\x3F'));
    }
  }
}

TEST(empty_files_and_empty_tensors) {
  const TempDir dir;
  CHECK(open_bytes(dir, safetensors("{}", "")).tensors().empty());
  CHECK(open_bytes(dir, safetensors(nsrt::str("{", entry("a", "F32", "[0,7]", "[0,0]"), "}"), ""))
            .tensors()
            .at("a")
            .numel() == 0);
}

TEST(header_length_is_bounded) {
  const TempDir dir;
  CHECK_THROWS(CheckpointError, open_bytes(dir, ""), "too few");
  CHECK_THROWS(CheckpointError, open_bytes(dir, "1234567"), "too few");
  CHECK_THROWS(CheckpointError, open_bytes(dir, std::string("\x05\0\0\0\0\0\0\0{}", 10)), "cut short");
  CHECK_THROWS(CheckpointError, open_bytes(dir, std::string(8, '\xFF') + "{}"), "more than the 100000000");
  CHECK_THROWS(CheckpointError, open_bytes(dir, safetensors("", "")), "does not begin with '{'");
  CHECK_THROWS(CheckpointError, open_bytes(dir, safetensors(" {}", "")), "does not begin with '{'");
  CHECK_THROWS(CheckpointError, open_bytes(dir, safetensors("{\"a\":", "")), "header: not valid JSON at byte 5");
}

TEST(entries_must_be_complete) {
  const TempDir dir;
  const auto file = [&](const std::string& e) { return open_bytes(dir, safetensors(nsrt::str("{", e, "}"), "abcd")); };
  for (const char* json :
       {"3", "{}", R"({"dtype":"F32","shape":[1]})", R"({"dtype":4,"shape":[1],"data_offsets":[0,4]})",
        R"({"dtype":"F32","shape":1,"data_offsets":[0,4]})", R"({"dtype":"F32","shape":[-1],"data_offsets":[0,4]})",
        R"({"dtype":"F32","shape":[1.0],"data_offsets":[0,4]})", R"({"dtype":"F32","shape":[1],"data_offsets":[0]})",
        R"({"dtype":"F32","shape":[1],"data_offsets":[0,4,4]})",
        R"({"dtype":"F32","shape":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1],"data_offsets":[0,4]})"})
    CHECK_THROWS(CheckpointError, file(nsrt::str("\"a\":", json)), "tensor \"a\" needs \"dtype\"");
  const std::string good = entry("a", "F32", "[1]", "[0,4]");
  CHECK_THROWS(CheckpointError, file(good + "," + good), "the key \"a\" twice");
  CHECK(file(good).tensors().size() == 1);
}

TEST(offsets_must_cover_the_data_exactly) {
  const TempDir dir;
  const auto file = [&](const std::string& e) {
    return open_bytes(dir, safetensors(nsrt::str("{", e, "}"), "abcdefgh"));
  };
  CHECK_THROWS(CheckpointError, file(entry("a", "F32", "[3]", "[0,12]")), "there are 8 bytes of data");
  CHECK_THROWS(CheckpointError, file(entry("a", "F32", "[1]", "[8,4]")), "lies at bytes 8 to 4");
  CHECK_THROWS(CheckpointError, file(entry("a", "F32", "[1]", "[0,8]")), "has 8 bytes, but its shape and dtype need 4");
  CHECK_THROWS(CheckpointError, file(entry("a", "F32", "[1]", "[0,4]")), "4 bytes after its last tensor");
  CHECK_THROWS(CheckpointError, file(entry("a", "F32", "[1]", "[4,8]")), "leaving a gap");
  CHECK_THROWS(CheckpointError, file(entry("a", "F32", "[2]", "[0,8]") + "," + entry("b", "F32", "[1]", "[4,8]")),
               "\"b\" begins at byte 4 of the data, inside");
  CHECK_THROWS(CheckpointError, file(entry("a", "F32", "[4611686018427387904,4,0]", "[0,0]")), "overflows");
  CHECK_THROWS(CheckpointError, file(entry("a", "F32", "[4294967296,4294967296]", "[0,0]")), "overflows");
  CHECK_THROWS(CheckpointError, file(R"("a":{"dtype":"F32","shape":[1],"data_offsets":[0,18446744073709551612]})"),
               "needs \"dtype\"");
}

TEST(other_dtypes_are_refused_unless_unused) {
  const TempDir dir;
  const auto file = [&](const std::string& e) {
    return open_bytes(dir, safetensors(nsrt::str("{", e, "}"), "abcdefgh"));
  };
  for (const char* dtype : {"I64", "F64"})
    CHECK_THROWS(CheckpointError, file(entry("w", dtype, "[1]", "[0,8]")), nsrt::str("tensor \"w\" has dtype ", dtype));
  CHECK_THROWS(CheckpointError, file(entry("w", "F16", "[4]", "[0,8]")), "convert it to bfloat16");
  CHECK_THROWS(CheckpointError, file(entry("w", "F99", "[4]", "[0,8]")), "unknown dtype \"F99\"");
  CHECK(file(entry("model.layers.0.self_attn.rotary_emb.inv_freq", "F64", "[1]", "[0,8]")).tensors().empty());
  CHECK(file(entry("position_ids", "I64", "[1]", "[0,8]")).tensors().empty());
  CHECK_THROWS(CheckpointError, file(entry("position_ids", "I64", "[2]", "[0,8]")), "need 16");
}

TEST(only_regular_files_are_opened) {
  const TempDir dir;
  CHECK_THROWS(CheckpointError, SafetensorsFile(dir.file("none.safetensors")), "No such file");
  CHECK_THROWS(CheckpointError, SafetensorsFile(dir.str()), "not a regular file");
  const std::string pipe = dir.file("pipe");
  CHECK(::mkfifo(pipe.c_str(), 0600) == 0);
  CHECK_THROWS(CheckpointError, SafetensorsFile(pipe), "not a regular file");
  CHECK_THROWS(CheckpointError, SafetensorsFile(std::string("a\0b", 3)), "NUL");
}

TEST(finds_nan_and_infinity_at_every_place) {
  for (const std::size_t count : {1u, 31u, 1023u, 1024u, 1025u, 2048u, 3001u}) {
    std::vector<std::uint16_t> half(count, 0x7F7F);  // the largest finite number
    std::vector<std::uint32_t> full(count, 0xFF7FFFFF);
    CHECK(nsrt::all_finite(half.data(), count, DType::kBFloat16));
    CHECK(nsrt::all_finite(full.data(), count, DType::kFloat32));
    for (std::size_t i = 0; i < count; i += count < 64 ? 1 : 97) {
      half[i] = i % 2 == 0 ? 0x7F80 : 0xFFC1;
      full[i] = i % 2 == 0 ? 0xFF800000 : 0x7FC00001;
      CHECK(!nsrt::all_finite(half.data(), count, DType::kBFloat16));
      CHECK(!nsrt::all_finite(full.data(), count, DType::kFloat32));
      half[i] = 0;
      full[i] = 1;
    }
  }
  CHECK(nsrt::all_finite(nullptr, 0, DType::kFloat32));
}
