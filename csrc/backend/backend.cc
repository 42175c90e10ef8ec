#include "backend/backend.h"

namespace nsrt {

void Backend::compose_token(const TokenArgs& args) {
  if (args.token > 0) advance(args.rows);
  condition(args.token);
  modulate();
  start(args.noise);
  for (std::int64_t i = 0; i < num_steps_; ++i) step(i, args);
  finish(args.out);
}

void Backend::decode_token(const TokenArgs& args) { compose_token(args); }

}  // namespace nsrt
