export function SimilarityView() { return <p class="note">not yet</p>; }
