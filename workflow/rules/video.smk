# Objects followed through videos.
