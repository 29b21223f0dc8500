#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <unordered_map>
#include <utility>
#include <vector>

#include "fovea/options.h"
#include "fovea/picture.h"
#include "fovea/request.h"
#include "fovea/result.h"

#include "base/guard.h"
#include "base/ids.h"
#include "base/task_queue.h"
#include "base/thread_pool.h"
#include "engine/image_cache.h"
#include "engine/image_store.h"
#include "engine/inbox.h"
#include "engine/metrics.h"
#include "engine/picture_identifier.h"
#include "engine/scheduler.h"
#include "engine/step_runner.h"

namespace fovea {

/// A request's picture when its sequence can run.
struct ReadyPicture {
  ImageIdentity identity{};
  std::shared_ptr<const EncodedImage> image;  ///< null: its keys and values are cached
  bool was_cached = false;                    ///< nothing was encoded for this request
  double picture_ms = 0;                      ///< hashing, decoding and cutting
  double vision_ms = 0;                       ///< from crops to embeddings
  double since_ms = 0;                        ///< the work began
  double encoding_since_ms = 0;               ///< the first crop was planned; 0: none was
};

/// Everything between a request's picture and its embeddings: who is it, do we have it, is somebody
/// at it already, and if not, the crops for the vision encoder. Owns the picture workers, the
/// embeddings in memory and those on disk. Pictures that arrive together are worked on once.
///
/// All calls come from the engine thread, and so do the events.
class PicturePipeline {
 public:
  struct Options {
    PictureLimits limits;
    CropGeometry crops;
    TokenId bos;
    int image_tokens = 0;
    int max_in_preparation = 1;  ///< requests whose pictures are decoded ahead: pixels are large
    int num_threads = 1;         ///< for each picture
    std::size_t cache_bytes = 0;
    std::optional<ImageStore> store;
  };
  /// What becomes of the requests that were added. A request that failed must be removed.
  struct Events {
    std::function<void(std::uint64_t id, ReadyPicture picture)> ready;   ///< may throw: it failed
    std::function<void(std::uint64_t id, const Error& failure)> failed;  ///< must not throw
  };

  static constexpr int kNumWorkers = 2;

  /// All references must outlive the pipeline. It lines up pictures at the scheduler, and asks the
  /// prefix cache whether a picture needs to be encoded at all.
  PicturePipeline(StepRunner& runner, Scheduler& scheduler, const PrefixCache& prefixes,
                  Inbox& inbox, Metrics& metrics, Options options, Events events);
  /// What the workers still send is to be thrown away.
  ~PicturePipeline();
  PicturePipeline(const PicturePipeline&) = delete;
  PicturePipeline& operator=(const PicturePipeline&) = delete;

  /// Takes the request's picture on; those with the smallest place are started first. `deadline_ms`
  /// is 0 for none, `adapter` the namespace in the prefix cache.
  void add(std::uint64_t id, double place_ms, double deadline_ms, const Request& request,
           std::int32_t adapter);
  /// Starts as many as may be in preparation. One that could hardly be answered in time fails here,
  /// while others wait: what it would have cost is theirs.
  void start(StepCosts& costs) noexcept;
  /// A ready picture was cached when its request was lined up, and evicted before its turn.
  void find_again(std::uint64_t id) noexcept;
  /// The request has been admitted: its place in preparation is free.
  void admitted(std::uint64_t id) noexcept;
  /// Forgets a request, wherever its picture is. None of its events come any more.
  void remove(std::uint64_t id) noexcept;

  /// A step has brought crops back, or has failed.
  void encoded(const StepPlan& plan, double done_ms) noexcept;
  void encoding_failed(const StepPlan& plan, const Error& failure) noexcept;
  /// The scheduler has dropped a picture: whoever waits for it would be too late.
  void give_up(const PictureJob& picture) noexcept;

  void clear_cache() { images_.clear(); }

  /// Others are on their way and may join a vision batch.
  bool is_preparing() const { return num_in_preparation_ > 0; }
  std::size_t cache_bytes() const { return images_.size_bytes(); }

 private:
  /// A request that was added and not removed.
  struct Client {
    Picture picture;
    bool apply_exif = true;
    std::int32_t adapter = 0;
    double place_ms = 0;
    double deadline_ms = 0;  // infinity when there is none
    ReadyPicture result;
    std::shared_ptr<const Image> pixels;
    bool in_preparation = false;  // counts in num_in_preparation_
    bool waits = false;           // listed in in_work_
  };
  /// A picture between its identification and its embeddings, and who waits for it.
  struct InWork {
    std::shared_ptr<PictureJob> job;  // null while it is being cut up
    double cut_ms = 0;
    std::vector<std::uint64_t> waiting;
  };
  /// What is needed to cut a picture up.
  struct Source {
    ImageIdentity identity{};
    std::shared_ptr<const Image> pixels;  // null: decode again
    Picture picture;
    bool apply_exif = true;
  };

  template <class T>
  void on_worker(std::function<Result<T>()> work, std::function<void(Result<T>)> then);
  template <class Body>
  void attempt(std::uint64_t id, Body&& body) noexcept;
  template <class Body>
  void attempt_for(const ImageIdentity& identity, Body&& body) noexcept;
  void identify(std::uint64_t id, Client& client);
  void identified(std::uint64_t id, Result<IdentifiedPicture> result);
  void find_or_encode(std::uint64_t id, Client& client);
  void load(std::shared_ptr<const Source> source);
  void loaded(const std::shared_ptr<const Source>& source, const HostEmbeddings& embeddings);
  void cut(const std::shared_ptr<const Source>& source);
  void cropped(const ImageIdentity& identity, Result<Crops> crops, double worked_ms);
  void store(const std::shared_ptr<const EncodedImage>& image);
  void image_is_ready(const std::shared_ptr<const EncodedImage>& image, double done_ms) noexcept;
  void fail_waiting(const ImageIdentity& identity, const Error& failure) noexcept;
  void update_deadline(const InWork& picture);
  void finish(std::uint64_t id, Client& client);

  StepRunner& runner_;
  Scheduler& scheduler_;
  const PrefixCache& prefixes_;
  Inbox& inbox_;
  Metrics& metrics_;
  Options options_;
  Events events_;
  ImageCache images_;

  std::unordered_map<std::uint64_t, Client> clients_;
  std::set<std::pair<double, std::uint64_t>> unprepared_;  // whose picture nobody has looked at
  std::map<ImageIdentity, InWork> in_work_;
  int num_in_preparation_ = 0;  // between the start of picture work and admission

  PictureIdentifier identifier_;
  ThreadPool pool_;
  std::unique_ptr<TaskQueue> workers_;  // last: they stop first
};

}  // namespace fovea
