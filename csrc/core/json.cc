#include "core/json.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <system_error>

#include "core/check.h"
#include "core/utf8.h"
#include "nextstep_rt/error.h"

namespace nsrt {
namespace {

constexpr int kMaxDepth = 64;
// A tree node takes about 70 bytes; the largest real header (a few thousand tensors) has about 10^5 nodes.
constexpr std::size_t kMaxNodes = 2'000'000;

bool is_digit(char c) { return c >= '0' && c <= '9'; }

class Parser {
 public:
  Parser(std::string_view text, const std::string& source) : text_(text), source_(source) {}

  Json document() {
    Json root = value(0);
    skip_space();
    if (pos_ != text_.size()) fail("text after the end of the JSON value");
    return root;
  }

 private:
  [[noreturn]] void fail(const std::string& what) const { fail_at(pos_, what); }
  [[noreturn]] void fail_at(std::size_t pos, const std::string& what) const {
    throw CheckpointError(str(source_, ": not valid JSON at byte ", pos, ": ", what));
  }

  // The next character, or NUL at the end (a NUL in the text itself is never legal, so the two need no telling apart).
  char peek() const { return pos_ < text_.size() ? text_[pos_] : '\0'; }
  bool accept(char c) {
    if (pos_ >= text_.size() || text_[pos_] != c) return false;
    ++pos_;
    return true;
  }
  void skip_space() {
    while (pos_ < text_.size() &&
           (text_[pos_] == ' ' || text_[pos_] == '\n' || text_[pos_] == '\t' || text_[pos_] == '\r'))
      ++pos_;
  }

  Json value(int depth) {
    if (depth > kMaxDepth) fail(str("nested more than ", kMaxDepth, " deep"));
    if (++nodes_ > kMaxNodes) fail(str("more than ", kMaxNodes, " values"));
    skip_space();
    switch (peek()) {
      case '{':
        return object(depth);
      case '[':
        return array(depth);
      case '"':
        return Json(string());
      case 't':
        return literal("true", Json(true));
      case 'f':
        return literal("false", Json(false));
      case 'n':
        return literal("null", Json());
      default:
        return number();
    }
  }

  Json literal(std::string_view word, Json result) {
    if (text_.substr(pos_, word.size()) != word) fail("expected a value");
    pos_ += word.size();
    return result;
  }

  Json array(int depth) {
    Json::Array items;
    accept('[');
    skip_space();
    if (accept(']')) return Json(std::move(items));
    while (true) {
      items.push_back(value(depth + 1));
      skip_space();
      if (accept(']')) return Json(std::move(items));
      if (!accept(',')) fail("expected ',' or ']'");
    }
  }

  Json object(int depth) {
    Json::Object members;
    const std::size_t start = pos_;
    accept('{');
    skip_space();
    if (accept('}')) return Json(std::move(members));
    while (true) {
      skip_space();
      if (peek() != '"') fail("expected a key in double quotes");
      std::string key = string();
      skip_space();
      if (!accept(':')) fail("expected ':'");
      members.emplace_back(std::move(key), value(depth + 1));
      skip_space();
      if (accept('}')) break;
      if (!accept(',')) fail("expected ',' or '}'");
    }
    std::sort(members.begin(), members.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
    const auto twice = std::adjacent_find(members.begin(), members.end(),
                                          [](const auto& a, const auto& b) { return a.first == b.first; });
    if (twice != members.end()) fail_at(start, str("this object has the key ", quoted(twice->first), " twice"));
    return Json(std::move(members));
  }

  std::string string() {
    std::string out;
    accept('"');
    while (true) {
      if (pos_ >= text_.size()) fail("the text ends inside a string");
      const auto c = static_cast<unsigned char>(text_[pos_]);
      if (c == '"') {
        ++pos_;
        return out;
      }
      if (c < 0x20) fail("a control character inside a string");
      if (c == '\\') {
        escape(out);
      } else {
        const std::size_t length = utf8_length(text_.substr(pos_));
        if (length == 0) fail("not valid UTF-8");
        out.append(text_.substr(pos_, length));
        pos_ += length;
      }
    }
  }

  void escape(std::string& out) {
    static constexpr std::string_view kLetters = "\"\\/bfnrt";
    static constexpr std::string_view kMeanings = "\"\\/\b\f\n\r\t";
    const std::size_t start = pos_++;
    const char letter = peek();
    if (const std::size_t i = kLetters.find(letter); letter != '\0' && i != std::string_view::npos) {
      out.push_back(kMeanings[i]);
      ++pos_;
      return;
    }
    if (!accept('u')) fail_at(start, "an unknown escape");
    std::uint32_t code = hex4(start);
    if (code >= 0xDC00 && code <= 0xDFFF) fail_at(start, "a low surrogate without a high one before it");
    if (code >= 0xD800 && code <= 0xDBFF) {
      if (!accept('\\') || !accept('u')) fail_at(start, "a high surrogate without a low one after it");
      const std::uint32_t low = hex4(start);
      if (low < 0xDC00 || low > 0xDFFF) fail_at(start, "a high surrogate without a low one after it");
      code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
    }
    append_utf8(out, code);
  }

  std::uint32_t hex4(std::size_t start) {
    const std::string_view digits = text_.substr(pos_, 4);
    std::uint32_t code = 0;
    const char* end = digits.data() + digits.size();
    const auto [last, error] = std::from_chars(digits.data(), end, code, 16);
    if (digits.size() != 4 || error != std::errc() || last != end) fail_at(start, "expected four hex digits after \\u");
    pos_ += 4;
    return code;
  }

  // from_chars takes more than JSON allows (inf, 1., 01), so the grammar is walked first.
  Json number() {
    const std::size_t start = pos_;
    bool integral = true;
    const bool negative = accept('-');
    if (pos_ >= text_.size()) fail("the text ends where a value should be");
    if (!is_digit(peek())) fail_at(start, "expected a value");
    if (accept('0'))
      integral = !negative;  // -0 is a number that no integer is
    else
      skip_digits();
    if (accept('.')) {
      integral = false;
      if (!is_digit(peek())) fail_at(start, "a number ends with a point");
      skip_digits();
    }
    if (accept('e') || accept('E')) {
      integral = false;
      if (!accept('+')) accept('-');
      if (!is_digit(peek())) fail_at(start, "a number without digits in its exponent");
      skip_digits();
    }
    if (is_digit(peek())) fail_at(start, "a number with a leading zero");
    const char* first = text_.data() + start;
    const char* last = text_.data() + pos_;
    if (std::int64_t i = 0; integral && std::from_chars(first, last, i).ec == std::errc()) return Json(i);
    double d = 0.0;
    if (std::from_chars(first, last, d).ec != std::errc()) fail_at(start, "a number too large or too small");
    return Json(d);
  }
  void skip_digits() {
    while (is_digit(peek())) ++pos_;
  }

  std::string_view text_;
  const std::string& source_;
  std::size_t pos_ = 0;
  std::size_t nodes_ = 0;
};

}  // namespace

Json Json::parse(std::string_view text, const std::string& source) { return Parser(text, source).document(); }

const Json* Json::find(std::string_view key) const {
  const Object* object = get<Object>();
  if (object == nullptr) return nullptr;
  const auto it = std::lower_bound(object->begin(), object->end(), key,
                                   [](const auto& member, std::string_view k) { return member.first < k; });
  return it != object->end() && it->first == key ? &it->second : nullptr;
}

bool Json::to_int(std::int64_t& out) const {
  constexpr double kExact = 9007199254740992.0;  // 2^53
  if (const auto* i = get<std::int64_t>()) {
    out = *i;
    return true;
  }
  const auto* d = get<double>();
  if (d == nullptr || std::fabs(*d) > kExact || *d != std::floor(*d)) return false;
  out = static_cast<std::int64_t>(*d);
  return true;
}

bool Json::to_double(double& out) const {
  if (const auto* d = get<double>()) {
    out = *d;
    return true;
  }
  const auto* i = get<std::int64_t>();
  if (i == nullptr) return false;
  out = static_cast<double>(*i);
  return true;
}

std::string Json::describe() const {
  if (is_null()) return "null";
  if (const auto* b = get<bool>()) return *b ? "true" : "false";
  if (const auto* i = get<std::int64_t>()) return std::to_string(*i);
  if (const auto* s = get<std::string>()) return quoted(*s);
  if (const auto* d = get<double>()) {
    char buffer[32];
    return {buffer, std::to_chars(buffer, buffer + sizeof buffer, *d).ptr};
  }
  return get<Array>() != nullptr ? "an array" : "an object";
}

std::string quoted(std::string_view text) {
  constexpr std::size_t kShown = 160;
  static constexpr char kHex[] = "0123456789abcdef";
  std::string out = "\"";
  for (std::size_t pos = 0; pos < text.size();) {
    if (pos >= kShown) {
      out += "...";
      break;
    }
    const auto c = static_cast<unsigned char>(text[pos]);
    const std::size_t length = utf8_length(text.substr(pos));
    if (length == 0 || c < 0x20 || c == 0x7F) {
      out += {'\\', 'x', kHex[c >> 4], kHex[c & 15]};
      ++pos;
    } else {
      out.append(text.substr(pos, length));
      pos += length;
    }
  }
  return out + "\"";
}

}  // namespace nsrt
