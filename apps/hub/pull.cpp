#include "hub/pull.h"

#include <algorithm>
#include <fmt/format.h>
#include <sys/statvfs.h>
#include <system_error>
#include <utility>

#include "base/error.h"
#include "base/try.h"
#include "hub/disk.h"
#include "hub/download.h"
#include "hub/file_choice.h"
#include "hub/human.h"
#include "hub/url.h"

namespace fovea::hub {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kMaxSmallFileBytes = std::uint64_t{64} << 20;
constexpr std::uint64_t kMaxWeightsBytes = std::uint64_t{256} << 30;
constexpr std::uint64_t kSpaceMargin = std::uint64_t{64} << 20;  // for everybody else

// A file, and where it comes from.
struct WantedFile {
  RemoteFile file;
  std::string url;
  bool is_weights = false;
};

std::uint64_t size_of(const fs::path& path) {
  std::error_code failure;
  const std::uintmax_t size = fs::file_size(path, failure);
  return failure ? 0 : size;
}

// One pull, step by step.
class Pull {
 public:
  Pull(Transport& transport, const ModelStore& store, const PullOptions& options,
       const PullEvents& events)
      : options_(options),
        store_(store),
        events_(events),
        downloader_(transport, options_.retries, events_, progress_) {}

  Result<PullResult> run() {
    FOVEA_TRY_STATUS(check_endpoint());
    FOVEA_TRY(const StoreLock held, lock());
    FOVEA_TRY_STATUS(look_at_hub());
    if (std::optional<PullResult> there = find_installed()) return std::move(*there);

    incoming_ = store_.incoming(options_.model);
    FOVEA_TRY_STATUS(choose_files());
    FOVEA_TRY_STATUS(check_sizes());
    FOVEA_TRY_STATUS(make_folder(incoming_));
    take_over_installed();
    FOVEA_TRY_STATUS(check_space());
    FOVEA_TRY_STATUS(fetch_files());
    if (options_.check) FOVEA_TRY_STATUS(options_.check(incoming_));
    for (const WantedFile& wanted : files_) manifest_.files.push_back(wanted.file);
    FOVEA_TRY_STATUS(store_.install(options_.model, manifest_));
    return PullResult{store_.folder(options_.model), manifest_, false, progress_.received};
  }

 private:
  Status check_endpoint() {
    FOVEA_TRY(const Origin origin, origin_of(options_.endpoint));
    if (!options_.token.empty()) FOVEA_TRY_STATUS(check_token_is_safe(origin));
    endpoint_ = options_.endpoint;
    while (endpoint_.ends_with('/')) endpoint_.pop_back();
    return {};
  }

  Result<StoreLock> lock() {
    Result<StoreLock> held = store_.lock(options_.model, /*wait=*/false);
    if (held.ok() || held.error().code != ErrorCode::kFailedPrecondition) return held;
    events_.say("waiting: " + held.error().message);
    return store_.lock(options_.model, /*wait=*/true);
  }

  Result<Repository> list(const std::string& repository, const std::string& revision) {
    const std::string what = fmt::format("{} at {}", repository, revision);
    FOVEA_TRY(const std::string text,
              downloader_.fetch_text(fmt::format("{}/api/models/{}/revision/{}?blobs=true",
                                                 endpoint_, repository, percent_encode(revision)),
                                     options_.token, what, kMaxListingBytes));
    return parse_repository(text);
  }

  Status look_at_hub() {
    const ModelReference& model = options_.model;
    FOVEA_TRY(weights_, list(model.repository, model.revision));
    tokenizer_repository_ = options_.tokenizer_repository;
    if (tokenizer_repository_.empty() && model.known != nullptr) {
      tokenizer_repository_ = model.known->tokenizer_repository;
    }
    if (tokenizer_repository_ == model.repository) tokenizer_repository_.clear();
    manifest_ = {.repository = model.repository,
                 .revision = model.revision,
                 .commit = weights_.commit,
                 .tokenizer_repository = tokenizer_repository_,
                 .tokenizer_commit = {},
                 .licence = weights_.licence,
                 .files = {}};
    if (tokenizer_repository_.empty()) return {};
    FOVEA_TRY(tokenizer_, list(tokenizer_repository_, "main"));
    manifest_.tokenizer_commit = tokenizer_.commit;
    return {};
  }

  std::optional<PullResult> find_installed() const {
    std::optional<Manifest> there = store_.find(options_.model);
    if (!there || there->commit != manifest_.commit ||
        there->tokenizer_repository != manifest_.tokenizer_repository ||
        there->tokenizer_commit != manifest_.tokenizer_commit) {
      return std::nullopt;
    }
    return PullResult{store_.folder(options_.model), std::move(*there), true, 0};
  }

  Status want(const Repository& from, const std::string& repository, const std::string& name,
              bool is_weights) {
    const RemoteFile* listed = from.find(name);
    if (listed == nullptr) {
      return error(ErrorCode::kNotFound, "{} lacks {}, which its index of shards names", repository,
                   name);
    }
    WantedFile wanted{.file = *listed,
                      .url = fmt::format("{}/{}/resolve/{}/{}", endpoint_, repository, from.commit,
                                         percent_encode(name)),
                      .is_weights = is_weights};
    if (!wanted.file.size || !wanted.file.digest) {
      FOVEA_TRY_STATUS(downloader_.look_up(wanted.url, options_.token, wanted.file));
    }
    files_.push_back(std::move(wanted));
    return {};
  }

  // Small files come first: what is wrong with them shows before gigabytes have come.
  Status choose_files() {
    const std::string& model = options_.model.repository;
    FOVEA_TRY(FileChoice choice, choose_weights(weights_, model));
    const bool own_tokenizer = tokenizer_repository_.empty();
    const std::string& tokenizer_home = own_tokenizer ? model : tokenizer_repository_;
    const Repository& tokenizer = own_tokenizer ? weights_ : tokenizer_;
    FOVEA_TRY(const std::vector<std::string> tokenizer_files,
              choose_tokenizer(tokenizer, tokenizer_home));
    for (const std::string& name : choice.others) {
      FOVEA_TRY_STATUS(want(weights_, model, name, /*is_weights=*/false));
    }
    for (const std::string& name : tokenizer_files) {
      FOVEA_TRY_STATUS(want(tokenizer, tokenizer_home, name, /*is_weights=*/false));
    }
    if (!choice.shard_index.empty()) {
      FOVEA_TRY_STATUS(want(weights_, model, choice.shard_index, /*is_weights=*/false));
      FOVEA_TRY(const std::string index,
                downloader_.fetch_text(files_.back().url, options_.token, choice.shard_index,
                                       kMaxShardIndexBytes));
      FOVEA_TRY(choice.weights, parse_shard_index(index));
    }
    for (const std::string& name : choice.weights) {
      FOVEA_TRY_STATUS(want(weights_, model, name, /*is_weights=*/true));
    }
    return {};
  }

  Status check_sizes() {
    std::uint64_t total = 0;
    for (const WantedFile& wanted : files_) {
      const std::uint64_t limit = wanted.is_weights ? kMaxWeightsBytes : kMaxSmallFileBytes;
      if (*wanted.file.size > limit) {
        return error(ErrorCode::kResourceExhausted, "{} has {} bytes; at most {} are pulled",
                     wanted.file.name, *wanted.file.size, limit);
      }
      total += *wanted.file.size;
      if (total > kMaxWeightsBytes) {
        return error(ErrorCode::kResourceExhausted, "{} has more than {} bytes",
                     options_.model.name(), kMaxWeightsBytes);
      }
    }
    progress_.total = total;
    return {};
  }

  // Files that an older revision shares with this one are linked, not fetched; what no file of this
  // one goes on with is dropped.
  void take_over_installed() {
    std::error_code ignored;
    const std::optional<Manifest> installed = store_.find(options_.model);
    for (const WantedFile& wanted : files_) {
      if (!installed) break;
      const auto same = std::ranges::find(installed->files, wanted.file.name, &RemoteFile::name);
      if (same == installed->files.end() || same->digest != wanted.file.digest) continue;
      fs::create_hard_link(store_.folder(options_.model) / same->name, incoming_ / same->name,
                           ignored);
    }
    std::vector<fs::path> leftovers;
    for (fs::directory_iterator it(incoming_, ignored), end; !ignored && it != end;
         it.increment(ignored)) {
      if (!belongs_here(it->path().filename().string())) leftovers.push_back(it->path());
    }
    for (const fs::path& leftover : leftovers) fs::remove_all(leftover, ignored);
  }

  bool belongs_here(const std::string& name) const {
    return std::ranges::any_of(files_, [&name](const WantedFile& wanted) {
      return name == wanted.file.name || name.starts_with(PartFile::stem(wanted.file));
    });
  }

  Status check_space() {
    std::uint64_t missing = 0;
    for (const WantedFile& wanted : files_) {
      const std::uint64_t here =
          std::max(size_of(incoming_ / wanted.file.name),
                   size_of(incoming_ / (PartFile::stem(wanted.file) + PartFile::kEnding)));
      missing += *wanted.file.size - std::min(here, *wanted.file.size);
    }
    struct statvfs disk = {};
    if (::statvfs(incoming_.c_str(), &disk) != 0) return system_error("look at", incoming_);
    const std::uint64_t free = std::uint64_t{disk.f_bavail} * disk.f_frsize;
    if (missing == 0 || missing + kSpaceMargin <= free) return {};
    return error(ErrorCode::kResourceExhausted, "{} needs {} in {}, where {} are free",
                 options_.model.name(), human_bytes(missing + kSpaceMargin), store_.root().string(),
                 human_bytes(free));
  }

  Status fetch_files() {
    for (const WantedFile& wanted : files_) {
      events_.say(fmt::format("{} ({})", wanted.file.name, human_bytes(*wanted.file.size)));
      FOVEA_TRY_STATUS(downloader_.fetch(wanted.url, options_.token, wanted.file, incoming_));
    }
    return {};
  }

  const PullOptions& options_;
  const ModelStore& store_;
  const PullEvents& events_;
  PullEvents::Progress progress_;
  Downloader downloader_;
  std::string endpoint_;
  Repository weights_;
  Repository tokenizer_;  // when it is another one
  std::string tokenizer_repository_;
  Manifest manifest_;
  fs::path incoming_;
  std::vector<WantedFile> files_;
};

}  // namespace

Result<PullResult> pull(Transport& transport, const ModelStore& store, const PullOptions& options,
                        const PullEvents& events) {
  return Pull(transport, store, options, events).run();
}

}  // namespace fovea::hub
