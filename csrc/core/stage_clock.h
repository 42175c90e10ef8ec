// Where the time of a token goes, stage by stage: kept by whoever computes it, one thread alone, at no cost when off.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>

namespace nsrt {

enum class Stage : std::size_t {
  kNoise,         // drawn for the token
  kImageIn,       // the last token's projection
  kQkv,           // norm; q, k, v
  kRopeAppend,    // rotation; keys and values join the cache
  kAttention,     // by blocks, and their combination
  kAttnOut,       // o + residual
  kMlp,           // norm; gate, up, down + residual; the last norm
  kCondition,     // image_out
  kFmModulation,  // all steps' adaLN modulations
  kFmSteps,       // every step: network, guidance, solver
  kFinish,        // token-wise normalization
  kOther,         // waking the team and waiting for its end, checking the result
};
inline constexpr std::array kStageNames{"noise", "image_in",  "norm_qkv",      "rope_append", "attention", "attn_out",
                                        "mlp",   "condition", "fm_modulation", "fm_steps",    "finish",    "other"};
inline constexpr std::size_t kStages = kStageNames.size();
static_assert(static_cast<std::size_t>(Stage::kOther) + 1 == kStages);

struct StageTime {
  double seconds = 0;
  std::int64_t barriers = 0;  // of the team, where there is one
};
using StageTimes = std::array<StageTime, kStages>;

// Every moment of a token is some stage's: the stages add up to it.
class StageClock {
 public:
  // Forgets what it has, and sums up from here on, or no more.
  void set(bool on) { *this = StageClock(on); }

  // The scope of one token. A token that fails leaves what it had used by then.
  class Token {
   public:
    explicit Token(StageClock* clock) : clock_(clock) {
      if (clock_ != nullptr && clock_->on_) clock_->begin();
    }
    ~Token() {
      if (clock_ == nullptr) return;
      clock_->mark(Stage::kOther);
      clock_->running_ = false;
    }
    Token(const Token&) = delete;
    Token& operator=(const Token&) = delete;

   private:
    StageClock* clock_;
  };

  // `stage` ends here, and the next one begins. Nothing outside a token.
  void mark(Stage stage) {
    if (!running_) return;
    const Clock::time_point now = Clock::now();
    of(stage).seconds += std::chrono::duration<double>(now - last_).count();
    last_ = now;
  }
  // The same in a team that has met at so many barriers.
  void mark(Stage stage, std::int64_t barriers) {
    mark(stage);
    if (running_) of(stage).barriers += barriers - barriers_;
    barriers_ = barriers;
  }
  // The team begins, after so many barriers.
  void join(std::int64_t barriers) {
    mark(Stage::kOther);
    barriers_ = barriers;
  }
  const StageTimes& times() const { return times_; }

  StageClock() = default;

 private:
  using Clock = std::chrono::steady_clock;

  explicit StageClock(bool on) : on_(on) {}
  void begin() {
    running_ = true;
    last_ = Clock::now();
  }
  StageTime& of(Stage stage) { return times_[static_cast<std::size_t>(stage)]; }

  bool on_ = false, running_ = false;
  Clock::time_point last_;
  std::int64_t barriers_ = 0;
  StageTimes times_{};
};

}  // namespace nsrt
