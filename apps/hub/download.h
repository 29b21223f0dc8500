#pragma once

#include <filesystem>
#include <string>

#include "hub/part_file.h"
#include "hub/repository.h"
#include "hub/retry.h"
#include "hub/transport.h"

namespace fovea::hub {

/// Fetches whole files, however often the connection breaks. One thread.
class Downloader {
 public:
  /// All must outlive it. `progress` is counted on with every byte that is here.
  Downloader(Transport& transport, const RetryPolicy& retries, const PullEvents& events,
             PullEvents::Progress& progress)
      : transport_(transport), retries_(retries), events_(events), progress_(progress) {}

  /// Brings `file` (with size and digest) from `url` into `folder` under its name. One that lies
  /// there already with the right sum is left alone, bytes of an earlier try are gone on with.
  /// Bytes with the wrong sum are fetched again once, from the beginning.
  Status fetch(const std::string& url, const std::string& token, const RemoteFile& file,
               const std::filesystem::path& folder);

  /// A small text that is only looked at: at most max_bytes.
  Result<std::string> fetch_text(const std::string& url, const std::string& token,
                                 const std::string& what, std::size_t max_bytes);

  /// Size and sum of a file from the headers of its address, where the list does not have them.
  Status look_up(const std::string& url, const std::string& token, RemoteFile& file);

 private:
  /// Asks until all bytes of the part are here.
  Status receive(HttpRequest request, const RemoteFile& file, PartFile& part);

  Transport& transport_;
  const RetryPolicy& retries_;
  const PullEvents& events_;
  PullEvents::Progress& progress_;
};

}  // namespace fovea::hub
