#include <cstdint>
#include <limits>
#include <string>

#include "core/check.h"
#include "core/json.h"
#include "nextstep_rt/error.h"
#include "test_kit.h"

using nsrt::CheckpointError;
using nsrt::Json;

namespace {

Json parse(const std::string& text) { return Json::parse(text, "doc"); }

std::string string_of(const std::string& text) {
  const Json json = parse(text);
  const auto* s = json.get<std::string>();
  return s != nullptr ? *s : "<no string>";
}

std::int64_t int_of(const std::string& text) {
  std::int64_t out = 0;
  return parse(text).to_int(out) ? out : -12345;
}

double double_of(const std::string& text) {
  double out = 0;
  return parse(text).to_double(out) ? out : -12345.0;
}

}  // namespace

TEST(reads_every_kind_of_value) {
  const Json json = parse(R"( {"b": [true, false, null], "a": {"x": 1, "y": -2.5e1}, "": "s"} )");
  CHECK(json.find("b")->get<Json::Array>()->size() == 3);
  CHECK(json.find("b")->get<Json::Array>()->at(2).is_null());
  CHECK(*json.find("b")->get<Json::Array>()->at(0).get<bool>());
  CHECK(*json.find("a")->find("x")->get<std::int64_t>() == 1);
  CHECK(*json.find("a")->find("y")->get<double>() == -25.0);
  CHECK(*json.find("")->get<std::string>() == "s");
  CHECK(json.find("c") == nullptr);
  CHECK(json.find("b")->find("a") == nullptr);
  CHECK(parse("{}").get<Json::Object>()->empty());
  CHECK(parse("[ ]").get<Json::Array>()->empty());
}

TEST(integers_are_exact) {
  CHECK(int_of("9223372036854775807") == std::numeric_limits<std::int64_t>::max());
  CHECK(int_of("-9223372036854775808") == std::numeric_limits<std::int64_t>::min());
  CHECK(int_of("9007199254740993") == 9007199254740993);
  CHECK(int_of("-0") == 0);
  CHECK(parse("9223372036854775808").get<double>() != nullptr);
  CHECK(int_of("9223372036854775808") == -12345);
}

TEST(integral_floats_count_as_integers) {
  CHECK(int_of("256.0") == 256);
  CHECK(int_of("1e3") == 1000);
  CHECK(int_of("256.5") == -12345);
  CHECK(int_of("1e300") == -12345);
  CHECK(int_of("\"256\"") == -12345);
  CHECK(int_of("true") == -12345);
  CHECK(double_of("3") == 3.0);
  CHECK(double_of("1e-06") == 1e-6);
  CHECK(double_of("null") == -12345.0);
}

TEST(strings_with_escapes) {
  CHECK(string_of(R"("a\"\\\/\b\f\n\r\tz")") == "a\"\\/\b\f\n\r\tz");
  CHECK(string_of(R"("\u0041\u00e9\u20AC\ud83d\ude00")") == "A\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80");
  CHECK(string_of(R"("\u0000")") == std::string(1, '\0'));
  CHECK(string_of("\"\xC3\xA9\xF4\x8F\xBF\xBF\"") == "\xC3\xA9\xF4\x8F\xBF\xBF");
}

TEST(bad_strings) {
  CHECK_THROWS(CheckpointError, parse(R"("abc)"), "byte 4: the text ends inside a string");
  CHECK_THROWS(CheckpointError, parse("\"a\nb\""), "control character");
  CHECK_THROWS(CheckpointError, parse(R"("\q")"), "unknown escape");
  CHECK_THROWS(CheckpointError, parse("\"\\"), "unknown escape");
  CHECK_THROWS(CheckpointError, parse(R"("\u12g4")"), "four hex digits");
  CHECK_THROWS(CheckpointError, parse(R"("\u-123")"), "four hex digits");
  CHECK_THROWS(CheckpointError, parse(R"("\u12)"), "four hex digits");
  CHECK_THROWS(CheckpointError, parse(R"("\ud800")"), "high surrogate");
  CHECK_THROWS(CheckpointError, parse(R"("\ud800\n")"), "high surrogate");
  CHECK_THROWS(CheckpointError, parse(R"("\ud800\u0041")"), "high surrogate");
  CHECK_THROWS(CheckpointError, parse(R"("\udc00")"), "low surrogate");
  for (const char* bytes : {"\x80", "\xC0\x80", "\xC3", "\xE0\x80\x80", "\xED\xA0\x80", "\xF4\x90\x80\x80", "\xFF"})
    CHECK_THROWS(CheckpointError, parse(nsrt::str("\"", bytes, "\"")), "not valid UTF-8");
}

TEST(bad_numbers) {
  for (const char* text : {"01", "-01", "00"}) CHECK_THROWS(CheckpointError, parse(text), "leading zero");
  for (const char* text : {"+1", ".5", "NaN", "Infinity", "-Infinity", "nan", "--1"})
    CHECK_THROWS(CheckpointError, parse(text), "expected a value");
  CHECK_THROWS(CheckpointError, parse("-"), "byte 1: the text ends");
  CHECK_THROWS(CheckpointError, parse("1."), "point");
  CHECK_THROWS(CheckpointError, parse("1e"), "exponent");
  CHECK_THROWS(CheckpointError, parse("1e+"), "exponent");
  CHECK_THROWS(CheckpointError, parse("1e999"), "too large");
  CHECK_THROWS(CheckpointError, parse("0x10"), "after the end");
}

TEST(bad_structure) {
  CHECK_THROWS(CheckpointError, parse(""), "doc: not valid JSON at byte 0: the text ends where a value");
  CHECK_THROWS(CheckpointError, parse("{} x"), "byte 3: text after the end");
  CHECK_THROWS(CheckpointError, parse(std::string("{}\0", 3)), "byte 2: text after the end");
  CHECK_THROWS(CheckpointError, parse("[1,]"), "expected a value");
  CHECK_THROWS(CheckpointError, parse("[1 2]"), "expected ',' or ']'");
  CHECK_THROWS(CheckpointError, parse("[1"), "expected ',' or ']'");
  CHECK_THROWS(CheckpointError, parse("{\"a\":1,}"), "expected a key");
  CHECK_THROWS(CheckpointError, parse("{a:1}"), "expected a key");
  CHECK_THROWS(CheckpointError, parse("{\"a\" 1}"), "expected ':'");
  CHECK_THROWS(CheckpointError, parse("{\"a\":1 \"b\":2}"), "expected ',' or '}'");
  CHECK_THROWS(CheckpointError, parse("{\"a\":}"), "expected a value");
  CHECK_THROWS(CheckpointError, parse("tru"), "expected a value");
  CHECK_THROWS(CheckpointError, parse("truex"), "after the end");
  CHECK_THROWS(CheckpointError, parse("\xEF\xBB\xBF{}"), "expected a value");
}

TEST(duplicate_keys_are_refused) {
  CHECK_THROWS(CheckpointError, parse(R"({"a":1,"b":2,"a":1})"), "the key \"a\" twice");
  CHECK_THROWS(CheckpointError, parse(R"([{"x":{"a":1,"\u0061":1}}])"), "byte 6: this object has the key \"a\" twice");
}

TEST(depth_and_size_are_limited) {
  CHECK(parse(std::string(64, '[') + std::string(64, ']')).get<Json::Array>() != nullptr);
  CHECK_THROWS(CheckpointError, parse(std::string(100000, '[')), "nested more than");
  std::string nested;
  for (int i = 0; i < 100000; ++i) nested += "{\"a\":";
  CHECK_THROWS(CheckpointError, parse(nested), "nested more than");
  std::string wide = "[0";
  for (int i = 0; i < 2'000'000; ++i) wide += ",0";
  CHECK_THROWS(CheckpointError, parse(wide + "]"), "values");
}

TEST(quoted_text_is_printable) {
  CHECK(nsrt::quoted("a\nb\x1B[31m\x7F\xFFz") == "\"a\\x0ab\\x1b[31m\\x7f\\xffz\"");
  CHECK(nsrt::quoted("\xC3\xA9") == "\"\xC3\xA9\"");
  CHECK(nsrt::quoted(std::string(10000, 'a')).size() < 200);
}

TEST(values_describe_themselves) {
  CHECK(parse("[1.5]").describe() == "an array");
  CHECK(parse("1.5").describe() == "1.5");
  CHECK(parse("12").describe() == "12");
  CHECK(parse("null").describe() == "null");
  CHECK(parse("\"x\"").describe() == "\"x\"");
}
